"""Sizes of a Paraformer, and how a ``config.yaml`` of FunASR states them.

Authors
 * The esr_lobes contributors
"""

import dataclasses

import yaml

from esr_lobes.encoders.emotion2vec_config import load_plain
from esr_lobes.weights import DAMAGE, WeightsError, first_line

# Where FunASR says what, in the words of ParaformerConfig.
NAMES = {
    "model_conf": {
        "sampling_ratio": "sampling_ratio",
        "predictor_bias": "predictor_bias",
        "share_embedding": "share_embedding",
        "blank_id": "blank_id",
        "sos": "sos_id",
        "eos": "eos_id",
    },
    "encoder_conf": {
        "output_size": "width",
        "attention_heads": "encoder_heads",
        "linear_units": "encoder_ffn",
        "num_blocks": "encoder_layers",
        "kernel_size": "encoder_kernel",
        "dropout_rate": "encoder_dropout",
    },
    "decoder_conf": {
        "attention_heads": "decoder_heads",
        "linear_units": "decoder_ffn",
        "num_blocks": "decoder_layers",
        "kernel_size": "decoder_kernel",
        "dropout_rate": "decoder_dropout",
    },
    "predictor_conf": {"tail_threshold": "tail"},
    "frontend_conf": {
        "n_mels": "n_mels",
        "lfr_m": "lfr_width",
        "lfr_n": "lfr_step",
    },
}
# What it may also say, and the only answers that this Paraformer knows.
FIXED = {
    "encoder_conf": {
        "input_layer": ("pe",),
        "normalize_before": (True,),
        "sanm_shfit": (0,),
        "selfattention_layer_type": ("sanm",),
    },
    "decoder_conf": {"sanm_shfit": (0,)},
    "predictor_conf": {
        "threshold": (1.0,),
        "l_order": (1,),
        "r_order": (1,),
        "smooth_factor": (1.0,),
        "noise_threshold": (0,),
    },
    "frontend_conf": {
        "fs": (16000,),
        "window": ("hamming",),
        "frame_length": (25,),
        "frame_shift": (10,),
    },
}
LIMITS = {
    "vocab": 1_000_000,
    "n_mels": 512,
    "lfr_width": 64,
    "lfr_step": 64,
    "encoder_layers": 256,
    "decoder_layers": 256,
    "encoder_kernel": 512,
    "decoder_kernel": 512,
}
MAX_SIZE = 65_536
SPECIAL = "blank_id", "sos_id", "eos_id"


@dataclasses.dataclass(frozen=True)
class ParaformerConfig:
    """Sizes of a Paraformer, by default those of the released large ones.

    Arguments
    ---------
    vocab : int
        Number of tokens.
    n_mels, lfr_width, lfr_step : int
        See :class:`esr_lobes.clsr.frontend.Frontend`.
    width : int
        Channels of a step and of a token.
    encoder_heads, encoder_ffn, encoder_layers, encoder_kernel : int
        See :class:`esr_lobes.clsr.encoder.SANMEncoder`.
    decoder_heads, decoder_ffn, decoder_layers, decoder_kernel : int
        See :class:`esr_lobes.clsr.decoder.SANMDecoder`.
    encoder_dropout, decoder_dropout : float
        What training blanks.
    share_embedding : bool
        See :class:`esr_lobes.clsr.decoder.SANMDecoder`.
    tail : float
        See :class:`esr_lobes.clsr.cif.CifPredictor`.
    sampling_ratio, predictor_bias, blank_id, sos_id, eos_id, masked_ids
        See :class:`esr_lobes.clsr.paraformer.Paraformer`.
    max_masked_bands, max_masked_steps : int
        See :class:`esr_lobes.clsr.frontend.LfrMask`.
    dither : float
        See :class:`esr_lobes.clsr.frontend.KaldiFbank`.

    Raises
    ------
    WeightsError
        If a size is impossible.

    Example
    -------
    >>> ParaformerConfig(vocab=8404).input_size
    560
    """

    vocab: int
    n_mels: int = 80
    lfr_width: int = 7
    lfr_step: int = 6
    width: int = 512
    encoder_heads: int = 4
    encoder_ffn: int = 2048
    encoder_layers: int = 50
    encoder_kernel: int = 11
    encoder_dropout: float = 0.1
    decoder_heads: int = 4
    decoder_ffn: int = 2048
    decoder_layers: int = 16
    decoder_kernel: int = 11
    decoder_dropout: float = 0.1
    share_embedding: bool = False
    tail: float = 0.45
    sampling_ratio: float = 0.75
    predictor_bias: int = 1
    blank_id: int | None = 0
    sos_id: int | None = 1
    eos_id: int | None = 2
    masked_ids: tuple = ()
    max_masked_bands: int = 30
    max_masked_steps: int = 12
    dither: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "masked_ids", tuple(self.masked_ids))
        try:
            self._check()
        except (TypeError, ValueError) as error:
            raise WeightsError(
                f"no Paraformer has these sizes: {error}"
            ) from error

    def _check(self):
        """Raises a ValueError that names a size that is impossible."""
        may_be_0 = "predictor_bias", "max_masked_bands", "max_masked_steps"
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                least = 0 if field.name in may_be_0 else 1
                most = LIMITS.get(field.name, MAX_SIZE)
                _check_size(field.name, value, least, most)
            elif field.type is float:
                if not 0.0 <= value < 2.0**15:
                    raise ValueError(f"{field.name} is {value!r}")
            elif field.type is bool and type(value) is not bool:
                raise ValueError(f"{field.name} is {value!r}, not a boolean")
        special = [getattr(self, name) for name in SPECIAL]
        for number in (*self.masked_ids, *special):
            if number is not None:
                _check_size("a special id", number, 0, self.vocab - 1)
        if self.predictor_bias and self.eos_id is None:
            raise ValueError("predictor_bias is 1, but there is no eos_id")
        for name in ("encoder_dropout", "decoder_dropout", "tail"):
            if getattr(self, name) >= 1.0:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, not below 1"
                )
        if self.sampling_ratio > 1.0 or self.predictor_bias > 1:
            raise ValueError("sampling_ratio or predictor_bias is above 1")
        for heads in (self.encoder_heads, self.decoder_heads):
            if self.width % heads:
                raise ValueError(
                    f"width {self.width} is no multiple of {heads} heads"
                )
        if self.input_size % 2:
            raise ValueError(
                f"n_mels times lfr_width is {self.input_size}, odd"
            )

    @property
    def input_size(self):
        """Channels of a stacked frame."""
        return self.n_mels * self.lfr_width

    @classmethod
    def from_yaml(cls, path, vocab):
        """Returns the sizes that a ``config.yaml`` of FunASR states.

        Arguments
        ---------
        path : Path
            The file. What it does not say is as in the large models.
        vocab : int
            Number of tokens, which the file does not say.

        Returns
        -------
        ParaformerConfig
            The sizes.

        Raises
        ------
        WeightsError
            If it cannot be read, or is about another architecture.
        """
        try:
            return cls(vocab=vocab, **_sizes(load_plain(path) or {}))
        except (*DAMAGE, OverflowError, yaml.YAMLError) as error:
            raise WeightsError(
                f"{path} describes no Paraformer that can be built "
                f"({first_line(error)[:300]})"
            ) from error


def _check_size(name, value, least, most):
    if type(value) is not int or not least <= value <= most:
        raise ValueError(
            f"{name} {repr(value)[:80]} is no whole number from {least} to "
            f"{most}"
        )


def _sizes(page):
    """Returns what a page of FunASR says, in the words of the dataclass."""
    kinds = {f.name: f.type for f in dataclasses.fields(ParaformerConfig)}
    sizes = {}
    for part, names in NAMES.items():
        said = page.get(part) or {}
        for key, known in FIXED.get(part, {}).items():
            if said.get(key, known[0]) not in known:
                raise ValueError(
                    f"{key} of {part} is {repr(said[key])[:80]}, not {known[0]}"
                )
        for key, name in names.items():
            if key in said:
                value = said[key]
                # PyYAML reads some numbers as text.
                sizes[name] = float(value) if kinds[name] is float else value
    decoder = page.get("decoder_conf") or {}
    layers = decoder.get("num_blocks")
    if decoder.get("att_layer_num", layers) != layers:
        raise ValueError("att_layer_num is not num_blocks of decoder_conf")
    return sizes
