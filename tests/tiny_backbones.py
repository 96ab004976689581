"""Random checkpoints of every architecture, small enough for a test.

Each lies in its folder as its library writes it, so that a test goes through
the code that opens the real ones.

Authors
 * The esr_lobes contributors
"""

import json
from pathlib import Path

import torch

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] a an the person speaking in tone voice "
    "happy sad angry calm fast quiet loud of says something with it"
).split()
SENTENCES = ["a happy person", "sad", "the voice of a calm person speaking"]
TEXTS = ("bert", "roberta", "t5", "flan_t5")
SPEECH = ("wavlm", "wav2vec2", "hubert", "emotion2vec")
PAIRS = ("clap",)
CONVOLUTIONS = {
    "conv_dim": [16, 16, 16],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 4, 4],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
T5_SIZES = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2}


def make_tiny(kind, folder):
    """Writes a random checkpoint.

    Arguments
    ---------
    kind : str
        One of ``TEXTS``, ``SPEECH`` or ``PAIRS``.
    folder : str
        Where to; made if it is not there.

    Returns
    -------
    pathlib.Path
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    makers = {
        "bert": _bert,
        "roberta": _roberta,
        "t5": _t5,
        "flan_t5": _flan_t5,
        "emotion2vec": _emotion2vec,
        "clap": _clap,
    }
    makers.get(kind, make_tiny_speech)(folder, kind)
    return folder


def _bert(folder, _):
    from transformers import AutoTokenizer, BertConfig, BertModel

    words = "\n".join(WORDS) + "\n"
    (folder / "vocab.txt").write_text(words, encoding="utf-8")
    config = BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=64, **SIZES
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)


def _roberta(folder, _):
    """A RoBERTa of 32 positions with a byte-level tokenizer."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import AutoTokenizer, RobertaConfig, RobertaForMaskedLM

    words = ByteLevelBPETokenizer()
    words.train_from_iterator(
        SENTENCES * 3,
        vocab_size=300,
        min_frequency=1,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    words.save_model(str(folder))
    settings = json.dumps({"tokenizer_class": "RobertaTokenizer"})
    (folder / "tokenizer_config.json").write_text(settings)
    config = RobertaConfig(
        vocab_size=words.get_vocab_size(),
        max_position_embeddings=34,
        pad_token_id=1,
        **SIZES,
    )
    RobertaForMaskedLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)


def _t5(folder, _):
    _any_t5(folder)


def _flan_t5(folder, _):
    """T5 1.1, as Flan-T5 is: a gated GELU, the two tables not tied."""
    _any_t5(folder, feed_forward_proj="gated-gelu", tie_word_embeddings=False)


def _any_t5(folder, **more):
    """A whole T5, decoder included, with a tokenizer of pieces."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        PreTrainedTokenizerFast,
        T5Config,
        T5ForConditionalGeneration,
    )

    pieces = Tokenizer(models.Unigram())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.train_from_iterator(
        SENTENCES * 3,
        trainers.UnigramTrainer(
            vocab_size=60,
            special_tokens=["<pad>", "</s>", "<unk>"],
            unk_token="<unk>",
            show_progress=False,
        ),
    )
    pieces.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    config = T5Config(
        # A multiple of 8, as the table of a real T5 is larger, too.
        vocab_size=-(-pieces.get_vocab_size() // 8) * 8,
        num_heads=2,
        decoder_start_token_id=0,
        **T5_SIZES,
        **more,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    ).save_pretrained(folder)


def make_tiny_speech(folder, kind, norm=None):
    """Writes WavLM or HuBERT as Base is, wav2vec 2.0 as Large is.

    Arguments
    ---------
    folder : pathlib.Path
        Where to.
    kind : str
        ``wavlm``, ``wav2vec2`` or ``hubert``.
    norm : str, optional
        ``group``: over time in the first convolution, as Base. ``layer``:
        over channels, and waveforms normalised, as Large.
    """
    from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

    norm = norm or {"wav2vec2": "layer"}.get(kind, "group")
    config = AutoConfig.for_model(
        kind,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        conv_bias=norm == "layer",
        num_feat_extract_layers=3,
        layerdrop=0.0,
        **CONVOLUTIONS,
        **SIZES,
    )
    AutoModel.from_config(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(
        do_normalize=norm == "layer", return_attention_mask=norm == "layer"
    ).save_pretrained(folder)


def _emotion2vec(folder, _):
    from esr_lobes.encoders.emotion2vec import (
        Emotion2vec,
        Emotion2vecConfig,
    )

    config = Emotion2vecConfig(
        embed_dim=32,
        depth=2,
        prenet_depth=1,
        num_heads=2,
        conv_layers=((16, 10, 5), (16, 8, 8), (16, 8, 8)),
        conv_pos_groups=4,
    )
    Emotion2vec.from_config(config).save(folder)


def _clap(folder, _):
    """A CLAP without fusion: 48 kHz, windows of 2 s, RoBERTa's words."""
    from transformers import (
        AutoTokenizer,
        ClapAudioConfig,
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapProcessor,
        ClapTextConfig,
    )

    _roberta(folder, _)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for path in folder.iterdir():
        path.unlink()
    audio = ClapAudioConfig(
        num_mel_bins=16,
        spec_size=64,
        window_size=4,
        patch_embeds_hidden_size=8,
        depths=[2, 1],
        num_attention_heads=[2, 2],
        hidden_size=16,
        num_hidden_layers=2,
    )
    text = ClapTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=34,
        **SIZES,
    )
    model = ClapModel(
        ClapConfig(text_config=text, audio_config=audio, projection_dim=24)
    )
    model.save_pretrained(folder)
    extractor = ClapFeatureExtractor(
        feature_size=16,
        max_length_s=2,
        frequency_min=50,
        truncation="rand_trunc",
    )
    ClapProcessor(extractor, tokenizer).save_pretrained(folder)
