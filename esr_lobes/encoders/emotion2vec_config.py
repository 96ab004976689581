"""Sizes of emotion2vec, and how a ``config.yaml`` of FunASR states them.

Authors
 * The esr_lobes contributors
"""

import ast
import dataclasses

import yaml

from esr_lobes.limits import check_text_size
from esr_lobes.weights import DAMAGE, WeightsError, first_line

# What a config.yaml may also say, and the only answers this encoder knows.
FIXED = {"layer_norm_first": False, "norm_affine": True}
FIXED_AUDIO = {
    "extractor_mode": "layer_norm",
    "conv_pos_pre_ln": False,
    "use_alibi_encoder": True,
    "learned_alibi": False,
    "learned_alibi_scale_per_layer": False,
}
MAX_SIZE, MAX_LAYERS = 65536, 128


@dataclasses.dataclass(frozen=True)
class Emotion2vecConfig:
    """Sizes of an emotion2vec encoder, by default those of the base model.

    Arguments
    ---------
    embed_dim : int
        Width of a frame.
    depth, prenet_depth : int
        Number of main blocks, and of blocks before them.
    num_heads : int
        Attention heads.
    mlp_ratio : float
        Hidden width of a block's two linear layers, in ``embed_dim``.
    norm_eps : float
        Of the norms around the blocks.
    conv_layers : tuple of (int, int, int)
        Channels, kernel and stride of the convolutions over samples.
    conv_pos_width, conv_pos_depth, conv_pos_groups : int
        Of the convolutions that tell positions; each has a kernel of
        ``conv_pos_width // conv_pos_depth``, at least 3.
    num_extra_tokens : int
        Learned tokens in front of the frames.

    Raises
    ------
    WeightsError
        If a size is impossible.

    Example
    -------
    >>> Emotion2vecConfig().min_samples
    400
    >>> [Emotion2vecConfig().n_frames(n) for n in (399, 400, 16000)]
    [0, 1, 49]
    """

    embed_dim: int = 768
    depth: int = 8
    prenet_depth: int = 4
    num_heads: int = 12
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-5
    conv_layers: tuple = (
        (512, 10, 5),
        *((512, 3, 2),) * 4,
        *((512, 2, 2),) * 2,
    )
    conv_pos_width: int = 95
    conv_pos_depth: int = 5
    conv_pos_groups: int = 16
    num_extra_tokens: int = 10

    def __post_init__(self):
        numbers = [
            value
            for value in dataclasses.asdict(self).values()
            if isinstance(value, int)
        ]
        for conv in self.conv_layers:
            numbers.extend(conv)
        layers = (self.depth, self.prenet_depth, self.conv_pos_depth)
        if not (
            all(1 <= number <= MAX_SIZE for number in numbers)
            and 1 <= len(self.conv_layers) <= MAX_LAYERS
            and all(k >= s for _, k, s in self.conv_layers)
            and max(layers) <= MAX_LAYERS
            and self.embed_dim % self.num_heads == 0
            and self.embed_dim % self.conv_pos_groups == 0
            and 0 < self.mlp_ratio * self.embed_dim <= MAX_SIZE
            and 0 <= self.norm_eps < 1
        ):
            raise WeightsError(f"no emotion2vec has these sizes: {self}")

    def n_frames(self, n_samples):
        """Returns how many frames come of that many samples, 0 or more."""
        for _, kernel, stride in self.conv_layers:
            n_samples = max(0, (n_samples - kernel) // stride + 1)
        return n_samples

    @property
    def min_samples(self):
        """The fewest samples that give a frame."""
        n_samples = 1
        for _, kernel, stride in reversed(self.conv_layers):
            n_samples = (n_samples - 1) * stride + kernel
        return n_samples


def read_config(path):
    """Returns the sizes that a ``config.yaml`` of FunASR states.

    Arguments
    ---------
    path : Path
        The file. Where it is not there, or says nothing about sizes, they
        are those of the base model.

    Returns
    -------
    Emotion2vecConfig
        The sizes.

    Raises
    ------
    WeightsError
        If it cannot be read, or is about another architecture.
    """
    if not path.is_file():
        return Emotion2vecConfig()
    try:
        text = path.read_text(encoding="utf-8")
        check_text_size(text)
        said = yaml.safe_load(text) or {}
        said = said.get("model_conf") or {}
        flat = {**said, **((said.get("modalities") or {}).get("audio") or {})}
        for key, value in (FIXED | FIXED_AUDIO).items():
            if flat.get(key, value) != value:
                raise ValueError(f"{key} is {flat[key]!r}, not {value!r}")
        sizes = {}
        for field in dataclasses.fields(Emotion2vecConfig):
            if field.name in flat:
                # PyYAML reads 1e-05 as text.
                sizes[field.name] = field.type(flat[field.name])
        if "feature_encoder_spec" in flat:
            sizes["conv_layers"] = parse_convs(flat["feature_encoder_spec"])
        config = Emotion2vecConfig(**sizes)
        heads = flat.get("num_alibi_heads", config.num_heads)
        if heads != config.num_heads:
            raise ValueError(f"num_alibi_heads is {heads}, not num_heads")
    except (*DAMAGE, yaml.YAMLError) as error:
        raise WeightsError(
            f"{path} describes no emotion2vec that can be built "
            f"({first_line(error)})"
        ) from error
    return config


def parse_convs(text):
    """Returns the convolutions that an expression lists, without ``eval``.

    Arguments
    ---------
    text : str
        Lists of (channels, kernel, stride), added and multiplied.

    Returns
    -------
    tuple of (int, int, int)
        One triple a convolution.

    Raises
    ------
    ValueError
        If it is anything else.

    Example
    -------
    >>> parse_convs("[(512, 10, 5)] + [(512, 3, 2)] * 2")
    ((512, 10, 5), (512, 3, 2), (512, 3, 2))
    """

    def value(node):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.List | ast.Tuple):
            return tuple(value(item) for item in node.elts)
        if isinstance(node, ast.BinOp):
            left, right = value(node.left), value(node.right)
            kinds = {type(left), type(right)}
            if isinstance(node.op, ast.Add) and kinds == {tuple}:
                return left + right
            if isinstance(node.op, ast.Mult) and kinds == {tuple, int}:
                times = left if isinstance(left, int) else right
                if times <= MAX_LAYERS:
                    return left * right
        raise ValueError(f"no list of convolutions: {text!r}")

    text = str(text)
    try:
        convs = value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"no list of convolutions: {text[:80]!r}") from error
    if not isinstance(convs, tuple) or not all(
        isinstance(conv, tuple)
        and len(conv) == 3
        and all(type(number) is int for number in conv)
        for conv in convs
    ):
        raise ValueError(f"no list of (channels, kernel, stride): {text!r}")
    return convs


def config_text(config):
    """Returns a ``config.yaml`` that states these sizes, as FunASR does.

    Arguments
    ---------
    config : Emotion2vecConfig
        The sizes.

    Returns
    -------
    str
        The text of the file.
    """
    sizes = dataclasses.asdict(config)
    convs = [tuple(conv) for conv in sizes.pop("conv_layers")]
    audio = {
        key: sizes.pop(key)
        for key in list(sizes)
        if key in ("prenet_depth", "num_extra_tokens")
        or key.startswith("conv_pos_")
    }
    audio["feature_encoder_spec"] = str(convs)
    audio["num_alibi_heads"] = config.num_heads
    modalities = {"audio": audio | FIXED_AUDIO}
    page = {
        "model": "Emotion2vec",
        "model_conf": {**sizes, **FIXED, "modalities": modalities},
    }
    return yaml.safe_dump(page, sort_keys=False)
