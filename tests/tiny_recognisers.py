"""Random recognisers, small enough for a test: Whisper, CTC, SpeechBrain's.

Authors
 * The esr_lobes contributors
"""

import json

import torch
from tiny_backbones import CONVOLUTIONS, SIZES, WORDS

WHISPER_WORDS = ["<|end|>", "<|start|>", *WORDS[5:]]
LETTERS = ["<pad>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRST"]


def make_tiny_whisper(folder):
    """Writes a Whisper of one layer that says six words.

    Arguments
    ---------
    folder : Path
        Where to; made if it is not there.

    Returns
    -------
    Path
        The folder.
    """
    from tokenizers import Tokenizer, models
    from transformers import (
        PreTrainedTokenizerFast,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    torch.manual_seed(1)
    vocabulary = {word: i for i, word in enumerate(WHISPER_WORDS)}
    config = WhisperConfig(
        vocab_size=len(vocabulary),
        num_mel_bins=16,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_target_positions=16,
        pad_token_id=0,
        eos_token_id=0,
        bos_token_id=0,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        init_std=1.0,  # else all clips give the same words
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config.max_length = 7
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary)),
        eos_token="<|end|>",
        pad_token="<|end|>",
        additional_special_tokens=["<|start|>"],
    ).save_pretrained(folder)
    return folder


def make_tiny_ctc(folder):
    """Writes a wav2vec 2.0 with CTC, its group norm over time as in Base.

    Arguments
    ---------
    folder : Path
        Where to; made if it is not there.

    Returns
    -------
    Path
        The folder.
    """
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
    )

    torch.manual_seed(1)
    folder.mkdir(parents=True, exist_ok=True)
    config = Wav2Vec2Config(
        vocab_size=len(LETTERS),
        pad_token_id=0,
        feat_extract_norm="group",
        num_feat_extract_layers=3,
        initializer_range=0.5,
        **CONVOLUTIONS,
        **SIZES,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(
        folder
    )
    path = folder / "vocab.json"
    path.write_text(json.dumps({c: i for i, c in enumerate(LETTERS)}))
    Wav2Vec2CTCTokenizer(str(path)).save_pretrained(folder)
    return folder


PAGE = """\
sample_rate: 16000
encoder: !new:speechbrain.nnet.containers.LengthsCapableSequential
    features: !new:speechbrain.lobes.features.Fbank
        n_mels: 8
    linear: !new:speechbrain.nnet.linear.Linear
        input_size: 8
        n_neurons: 23
    softmax: !new:speechbrain.nnet.activations.Softmax
        apply_log: True
tokenizer: !new:speechbrain.dataio.encoder.CTCTextEncoder
decoding_function: !name:speechbrain.decoders.ctc_greedy_decode
    blank_id: 0
modules:
    encoder: !ref <encoder>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        encoder: !ref <encoder>
        tokenizer: !ref <tokenizer>
"""


def make_tiny_speechbrain(folder):
    """Writes what ``EncoderASR`` of SpeechBrain opens.

    Arguments
    ---------
    folder : Path
        Where to; made if it is not there.

    Returns
    -------
    Path
        The folder.
    """
    from hyperpyyaml import load_hyperpyyaml

    torch.manual_seed(1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hyperparams.yaml").write_text(PAGE)
    parts = load_hyperpyyaml(PAGE)
    tokenizer = parts["tokenizer"]
    tokenizer.insert_blank(index=0)
    for letter in LETTERS[1:]:
        tokenizer.add_label(" " if letter == "|" else letter)
    tokenizer.save(folder / "tokenizer.ckpt")
    torch.save(parts["encoder"].state_dict(), folder / "encoder.ckpt")
    return folder
