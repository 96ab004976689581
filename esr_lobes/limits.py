"""How much a stranger's few lines may stand for.

A few lines of YAML can stand for more than a machine holds: aliases of lists
of aliases, references that double a text each, `9**9**9`. How large a page
will become is added up here beforehand, without resolving anything. So can a
few convolutions, whose strides multiply.

Authors
 * The esr_lobes contributors
"""

import re

import ruamel.yaml

MAX_TEXT = 100_000
MAX_NODES = 10_000
MAX_CONVOLUTIONS = 32
# Four seconds at 16 kHz; a frame of WavLM or emotion2vec hears 400 samples.
MAX_REACH = 65_536
# What a resolved number may take more than the text it is made of.
NUMBER = 24

_REFERENCE = re.compile(r"<([^>]*)>")
_REFUSED = ("'", '"', "<", ">")


def check_text_size(text):
    """Returns nothing for a text of a page's size.

    Raises
    ------
    ValueError
        If it has more than ``MAX_TEXT`` characters.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(
            f"it has {len(text)} characters; a page has at most {MAX_TEXT}"
        )


def check_aliases(document):
    """Returns nothing for nodes that stay few when aliases are followed.

    Arguments
    ---------
    document : ruamel.yaml.Node
        A composed document.

    Raises
    ------
    ValueError
        If they come to more than ``MAX_NODES``, or one holds itself.
    """
    if _count(document, {}) > MAX_NODES:
        raise ValueError(
            f"it has more than {MAX_NODES} values when its aliases are followed"
        )


def _count(node, known):
    """Returns how many nodes a node stands for; each is looked at once."""
    if id(node) not in known:
        known[id(node)] = None
        children = ()
        if isinstance(node, ruamel.yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, ruamel.yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_count(child, known) for child in children)
    if known[id(node)] is None:
        raise ValueError("a value holds itself")
    return known[id(node)]


def reach(kernels, strides):
    """Returns how many samples the first frame of convolutions hears.

    A shorter clip is brought to that length, however little memory the
    convolutions themselves take.

    Arguments
    ---------
    kernels, strides : sequence of int
        One of each a convolution, first to last.

    Returns
    -------
    int
        The samples.

    Raises
    ------
    ValueError
        If one is no whole number above 0, or they or the samples are more
        than any speech model needs.

    Example
    -------
    >>> reach([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2])
    400
    """
    layers = list(zip(kernels, strides, strict=True))
    if not 1 <= len(layers) <= MAX_CONVOLUTIONS:
        raise ValueError(
            f"{len(layers)} convolutions, not 1 to {MAX_CONVOLUTIONS}"
        )
    samples = 1
    for kernel, stride in reversed(layers):
        for number in kernel, stride:
            if type(number) is not int or not 1 <= number <= MAX_REACH:
                raise ValueError(
                    f"kernel or stride {repr(number)[:80]} of a convolution "
                    f"is no whole number from 1 to {MAX_REACH}"
                )
        samples = (samples - 1) * stride + kernel
    if samples > MAX_REACH:
        raise ValueError(
            f"convolutions whose first frame hears more than {MAX_REACH} "
            "samples"
        )
    return samples


def check_growth(tree, given=()):
    """Returns nothing for a page whose references make nothing large.

    Arguments
    ---------
    tree : dict
        The page as ruamel.yaml's round-trip loader reads it, with all that
        will be laid over it.
    given : collection of str
        Keys at the root whose values are the caller's, such as ``folder``:
        they may hold any character.

    Raises
    ------
    ValueError
        If references go in circles, come to more than ``MAX_TEXT``
        characters, raise to a power or repeat a text.

    Example
    -------
    >>> check_growth(ruamel.yaml.YAML().load("n: 2\\nm: !ref <n> * 3"))
    >>> check_growth(ruamel.yaml.YAML().load("n: 9\\nm: !ref <n>**<n>"))
    Traceback (most recent call last):
    ValueError: !ref <n>**<n> raises to a power
    """
    size = _Size(tree, given).of(tree)
    if size > MAX_TEXT:
        raise ValueError(
            f"its references come to more than {MAX_TEXT} characters"
        )


class _Size:
    """Adds up the text of values, those referred to each time again."""

    def __init__(self, tree, given):
        self.tree = tree
        self.exempt = {id(tree[key]) for key in given if key in tree}
        self.known = {}

    def of(self, value):
        """Returns no fewer characters than the value will come to."""
        is_node = isinstance(value, (dict, list)) or _is_reference(value)
        if not is_node:
            return len(str(value)) + 1
        if id(value) not in self.known:
            self.known[id(value)] = None
            self.known[id(value)] = self._sum(value)
        if self.known[id(value)] is None:
            raise ValueError("a value refers to itself")
        return self.known[id(value)]

    def _sum(self, value):
        if isinstance(value, dict):
            pairs = value.items()
            return 1 + sum(self.of(k) + self.of(v) for k, v in pairs)
        if isinstance(value, list):
            return 1 + sum(map(self.of, value))
        return self._of_reference(value.value)

    def _of_reference(self, text):
        """Returns the size of a text with its references put in.

        The resolver takes what comes out for arithmetic, where only quotes
        and powers make much of little.
        """
        is_joined = not _REFERENCE.fullmatch(text)
        if is_joined:
            _refuse_power(text)
        size = len(text) + NUMBER
        for reference in _REFERENCE.findall(text):
            target = self._target(reference)
            size += self.of(target)  # first: it goes in no circles
            while _is_reference(target) and _REFERENCE.fullmatch(target.value):
                target = self._target(target.value[1:-1])
            if is_joined and id(target) not in self.exempt:
                _refuse_part(text, target)
        return size

    def _target(self, reference):
        """Returns what a reference like ``a[b]`` means."""
        branch = self.tree
        for part in reference.partition(".")[0].split("["):
            part = part.strip("]")
            if not isinstance(branch, dict) or part not in branch:
                raise ValueError(f"there is no <{reference}> to refer to")
            branch = branch[part]
        if isinstance(branch, str) and "<" in branch:
            if id(branch) not in self.exempt:
                raise ValueError(f"{branch!r} is referred to and holds a <")
        return branch


def _is_reference(value):
    tag = getattr(value, "tag", None)
    return isinstance(value, ruamel.yaml.comments.TaggedScalar) and (
        getattr(tag, "value", None) in ("!ref", "!copy")
    )


def _refuse_power(text):
    """Refuses a joined reference by what stands between its parts."""
    between = _REFERENCE.sub("", text)
    # Joined with its like, a star at an end would be a power, too.
    is_open = text.strip().startswith("*") or text.strip().endswith("*")
    if "**" in between or "**" in text or is_open:
        raise ValueError(f"!ref {text} raises to a power")
    if not text.strip() or any(sign in between for sign in _REFUSED):
        raise ValueError(f"!ref {text} is blank or holds a quote")


def _refuse_part(text, part):
    """Refuses what may not be put into a text."""
    if isinstance(part, (dict, list)):
        raise ValueError(f"!ref {text} puts keys or a list into a text")
    if _is_reference(part):
        return  # looked at by itself
    part = str(part)
    if not part.strip() or any(sign in part for sign in ("*", *_REFUSED)):
        raise ValueError(
            f"!ref {text} puts in {part!r}, which is blank or holds one of "
            "* ' \" < >"
        )
