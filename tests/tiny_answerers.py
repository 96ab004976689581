"""A random Qwen2-Audio, small enough for a test, in the layout of the hub's.

Authors
 * The esr_lobes contributors
"""

import json

import torch

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
)
LINES = (
    "system You are a helpful assistant.",
    "user Audio 1: who built the old mill by the river?",
    "assistant the monks of the town built it",
)


def make_tiny_qwen_audio(folder, n_positions=2048, chunk_seconds=3):
    """Writes a Qwen2-Audio of one layer each, with a tiny BPE.

    Config, generation settings, weights, tokenizer, feature extractor and
    chat template lie in files of their own, as in Qwen2-Audio-7B-Instruct's
    repository. An audio is at most 3 s long, so that tests are quick; weights
    are drawn large enough for answers to depend on what is heard.

    Arguments
    ---------
    folder : Path
        Where to; made if it is not there.
    n_positions : int
        Tokens that the model takes.
    chunk_seconds : int
        Longest audio.

    Returns
    -------
    Path
        The folder.
    """
    from tokenizers import ByteLevelBPETokenizer
    from transformers import (
        GenerationConfig,
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        Qwen2TokenizerFast,
        WhisperFeatureExtractor,
    )

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    pieces = ByteLevelBPETokenizer()
    pieces.train_from_iterator(
        LINES * 3, vocab_size=300, min_frequency=2, show_progress=False
    )
    pieces.save_model(str(folder))
    tokenizer = Qwen2TokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(SPECIAL[1:])}
    )
    ids = dict(
        zip(
            SPECIAL, tokenizer.convert_tokens_to_ids(list(SPECIAL)), strict=True
        )
    )
    extractor = WhisperFeatureExtractor(
        feature_size=16, chunk_length=chunk_seconds
    )
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "d_model": 16,
            "max_source_positions": 50 * chunk_seconds,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": n_positions,
            "initializer_range": 1.0,
        },
        audio_token_index=ids["<|AUDIO|>"],
    )
    model = Qwen2AudioForConditionalGeneration(config)
    with torch.no_grad():
        model.model.multi_modal_projector.linear.weight.mul_(50.0)
    # As Qwen2-Audio-7B-Instruct has it: sampled, with a penalty.
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.7,
        top_p=0.5,
        top_k=20,
        repetition_penalty=1.1,
        eos_token_id=[ids["<|endoftext|>"], ids["<|im_end|>"]],
        pad_token_id=ids["<|endoftext|>"],
    )
    for part in model, extractor, tokenizer:
        part.save_pretrained(folder)
    processor = Qwen2AudioProcessor(extractor, tokenizer)
    (folder / "chat_template.json").write_text(
        json.dumps({"chat_template": processor.chat_template})
    )
    return folder
