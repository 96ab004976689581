"""Sizes of emotion2vec, and how a ``config.yaml`` of FunASR states them.

Authors
 * The esr_lobes contributors
"""

import ast
import dataclasses

import yaml

from esr_lobes.limits import MAX_CONVOLUTIONS, MAX_TEXT, reach
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
MAX_SIZE, MAX_SPEC, MAX_DEPTH = 65_536, 1000, 20
# What costs more than the weights tell.
LIMITS = {
    "depth": 128,
    "prenet_depth": 128,
    "num_heads": 128,
    "conv_pos_depth": 128,
    "num_extra_tokens": 1024,
}


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
        try:
            self._check()
        except ValueError as error:
            raise WeightsError(
                f"no emotion2vec has these sizes: {error}"
            ) from error

    def _check(self):
        """Raises a ValueError that names a size that is impossible."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                _check_size(field.name, value, LIMITS.get(field.name, MAX_SIZE))
        reach(*self._windows())
        for channels, kernel, stride in self.conv_layers:
            _check_size("conv_layers", channels, MAX_SIZE)
            if kernel < stride:
                raise ValueError(f"a kernel of {kernel} at stride {stride}")
        for name in "num_heads", "conv_pos_groups":
            number = getattr(self, name)
            if self.embed_dim % number:
                raise ValueError(
                    f"embed_dim {self.embed_dim} is no multiple of {name} "
                    f"{number}"
                )
        if not 1 <= self.mlp_ratio * self.embed_dim <= MAX_SIZE:
            raise ValueError(
                f"embed_dim {self.embed_dim} times mlp_ratio {self.mlp_ratio} "
                f"is no width from 1 to {MAX_SIZE}"
            )
        if not 0 <= self.norm_eps < 1:
            raise ValueError(f"norm_eps is {self.norm_eps}")

    def n_frames(self, n_samples):
        """Returns how many frames come of that many samples, 0 or more."""
        for _, kernel, stride in self.conv_layers:
            n_samples = max(0, (n_samples - kernel) // stride + 1)
        return n_samples

    @property
    def min_samples(self):
        """The fewest samples that give a frame."""
        return reach(*self._windows())

    def _windows(self):
        """Returns the convolutions' kernels, and their strides."""
        _, kernels, strides = zip(*self.conv_layers, strict=True)
        return kernels, strides


def _check_size(name, value, most):
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(
            f"{name} {_short(value)} is no whole number from 1 to {most}"
        )


def _short(value):
    """Returns what a message shows of a value that may be long."""
    return repr(value)[:80]


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
        said = load_plain(path) or {}
        said = said.get("model_conf") or {}
        flat = {**said, **((said.get("modalities") or {}).get("audio") or {})}
        for key, value in (FIXED | FIXED_AUDIO).items():
            if flat.get(key, value) != value:
                raise ValueError(f"{key} is {_short(flat[key])}, not {value}")
        sizes = {}
        for field in dataclasses.fields(Emotion2vecConfig):
            if field.type is not tuple and field.name in flat:
                # PyYAML reads 1e-05 as text.
                sizes[field.name] = field.type(flat[field.name])
        if "feature_encoder_spec" in flat:
            sizes["conv_layers"] = parse_convs(flat["feature_encoder_spec"])
        config = Emotion2vecConfig(**sizes)
        heads = flat.get("num_alibi_heads", config.num_heads)
        if heads != config.num_heads:
            raise ValueError(
                f"num_alibi_heads is {_short(heads)}, not num_heads"
            )
    except (*DAMAGE, OverflowError, yaml.YAMLError) as error:
        raise WeightsError(
            f"{path} describes no emotion2vec that can be built "
            f"({first_line(error)[:300]})"
        ) from error
    return config


def load_plain(path):
    """Returns what YAML says that stays as small as its text.

    Arguments
    ---------
    path : Path
        The file.

    Returns
    -------
    object
        Plain data.

    Raises
    ------
    ValueError
        If the text is too long, too deep, or grows by aliases.
    """
    size = path.stat().st_size
    if size > MAX_TEXT:
        raise ValueError(f"it has {size} bytes, more than {MAX_TEXT}")
    text = path.read_text(encoding="utf-8")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            # Lists of aliases of lists of aliases fill a memory.
            raise ValueError("it has aliases (*name); write out what they mean")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:  # which takes the parser minutes
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return yaml.safe_load(text)


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
        If it is anything else, or more than ``MAX_CONVOLUTIONS``.

    Example
    -------
    >>> parse_convs("[(512, 10, 5)] + [(512, 3, 2)] * 2")
    ((512, 10, 5), (512, 3, 2), (512, 3, 2))
    """

    def value(node):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            if node.value <= MAX_SIZE:
                return node.value
        if isinstance(node, ast.List | ast.Tuple):
            return tuple(value(item) for item in node.elts)
        if isinstance(node, ast.BinOp):
            left, right = value(node.left), value(node.right)
            kinds = {type(left), type(right)}
            if isinstance(node.op, ast.Add) and kinds == {tuple}:
                if len(left) + len(right) <= MAX_CONVOLUTIONS:
                    return left + right
            if isinstance(node.op, ast.Mult) and kinds == {tuple, int}:
                convs, times = sorted((left, right), key=_is_number)
                if len(convs) * times <= MAX_CONVOLUTIONS:
                    return convs * times
        raise ValueError(f"no list of convolutions: {_short(text)}")

    text = str(text)
    if len(text) > MAX_SPEC:  # so that the parser has no depth to fail in
        raise ValueError(f"no list of convolutions: {_short(text)}...")
    try:
        convs = value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"no list of convolutions: {_short(text)}") from error
    if not isinstance(convs, tuple) or not all(
        isinstance(conv, tuple)
        and len(conv) == 3
        and all(type(number) is int for number in conv)
        for conv in convs
    ):
        raise ValueError(
            f"no list of (channels, kernel, stride): {_short(text)}"
        )
    return convs


def _is_number(value):
    return isinstance(value, int)


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
