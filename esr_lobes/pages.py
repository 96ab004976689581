"""Pages: what a run is, in YAML, strict about every key.

A page is laid over its ``base``, if it names one; over the page go what the
recipe of a corpus says, the variants asked for (files in ``variants/`` beside
the page), and the command line, each changing only what is there.

HyperPyYAML checks keys at the root only; a key misspelt inside a part or
in the arguments of a class would pass in silence, or fail after an hour.
Here a page is checked as a whole before anything is built.

Authors
 * The esr_lobes contributors
"""

import contextlib
import difflib
import inspect
import io
import pydoc
import re
from collections.abc import Mapping
from numbers import Real
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from esr_lobes.errors import MendableError

KEYS, LIST, TEXT = "keys and values", "a list", "text"
MAKERS = ("!include:", "!new:", "!name:")  # tags whose keys are arguments
_REFERENCE = re.compile(r"<(\w+)[^<>]*>")  # what !ref refers to
KINDS = {
    KEYS: Mapping,
    LIST: (list, tuple),
    "True or False": bool,  # before Real: a bool is one
    "a number": Real,
    TEXT: str,
}
# What building a page raises on values that do not suit; the rest is ours.
BUILD_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    YAMLError,
)


class PageError(MendableError):
    """A page, its parts or its overrides cannot be what was meant."""


def load_page(path, overrides=None, corpus=None):
    """Returns the objects of a page, and the page as one flat text.

    Arguments
    ---------
    path : str
        The page, such as ``hparams/compact.yaml``.
    overrides : str or dict
        What the command line changes, as ``speechbrain.parse_arguments``
        returns it; nested keys reach into parts. The key ``variant`` names
        a file in ``variants/``, or several joined by ``+``; they become
        part of the page's name.
    corpus : str
        The page of a recipe, laid over the page: it says what belongs to
        the corpus (its folders, its splits, its preparation).

    Returns
    -------
    hparams : dict
        What the page makes.
    flat : str
        The same page without references or parts, which loads alone.

    Raises
    ------
    FileNotFoundError
        If there is no such page, or no file that it names.
    PageError
        If the page cannot be read or built, names a key that nobody reads,
        or an override puts a value where keys are wanted, or text where a
        number is.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "page.yaml"
    >>> _ = path.write_text("lr: 0.1\\ndouble: !ref <lr> * 2\\n")
    >>> load_page(path, overrides="lr: 0.2")[0]
    {'lr': 0.2, 'double': 0.4}
    >>> load_page(path, overrides="lrr: 0.2")
    Traceback (most recent call last):
    esr_lobes.pages.PageError: page.yaml: no key 'lrr'; did you mean 'lr'?
    """
    path = Path(path)
    flat = flatten_page(path, overrides, corpus)
    with _build_errors(path):
        return load_hyperpyyaml(flat), flat


def flatten_page(path, overrides=None, corpus=None):
    """Returns a page as one flat text, without building what it names.

    Arguments
    ---------
    path : str
        The page.
    overrides : str or dict
        What the command line changes, see :func:`load_page`.
    corpus : str
        The page of a recipe, laid over the page.

    Returns
    -------
    str
        The page without references or parts, which loads alone.

    Raises
    ------
    FileNotFoundError
        If there is no such page, or no file that it names.
    PageError
        If it is wrong in itself, see :func:`load_page`.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "page.yaml"
    >>> _ = path.write_text("lr: 0.1\\ndouble: !ref <lr> * 2\\n")
    >>> print(flatten_page(path, overrides="lr: 0.2").strip())
    lr: 0.2
    double: 0.4
    """
    path = Path(path)
    tree = _on_its_base(path, path.parent)
    if corpus is not None:
        _lay_corpus_over(tree, Path(corpus))
    changes = dict(_as_tree(overrides)) if overrides else {}
    variants = _variants(changes.pop("variant", None), path)
    for name in variants:
        variant = path.parent / "variants" / f"{name}.yaml"
        _lay_over(tree, _read(variant), variant)
    if variants and "name" not in changes:
        tree["name"] = "-".join([_name(tree, path), *variants])
    _lay_over(tree, changes, path)
    _check(tree, path, where="")
    _refuse_placeholders(tree, path)
    with _build_errors(path):
        return resolve_references(_named(tree, path)).getvalue()


@contextlib.contextmanager
def _build_errors(path):
    """Turns what HyperPyYAML raises on unfit values into a PageError."""
    try:
        yield
    except BUILD_ERRORS as error:
        if isinstance(error, (PageError, FileNotFoundError)):
            raise
        text = " ".join(str(part) for part in error.args)
        raise PageError(f"{path.name}: {text or repr(error)}") from error


def _on_its_base(path, folder, above=()):
    """Returns a page laid over its base; a base may add to its own base."""
    chain = [*above, path.resolve()]
    if chain[-1] in above:
        names = " -> ".join(p.name for p in chain)
        raise PageError(f"A base may not lead back to itself: {names}")
    page = _read(path)
    base = page.pop("base", None)
    if base is None:
        return page
    tree = _on_its_base(folder / str(base), folder, chain)
    _lay_over(tree, page, path, is_open=bool(above))
    tree.ca.comment = page.ca.comment  # what it says at its head
    return tree


def _lay_corpus_over(tree, path):
    """Puts all that a recipe says into a page, also keys of its own."""
    corpus = _read(path)
    for key, value in corpus.items():
        if key in ("base", "variant"):
            raise PageError(
                f"{path.name} is laid over any page: it has no {key!r} itself"
            )
        tree[key] = value


def _name(tree, path):
    """Returns the name of a page that variants become a part of."""
    name = tree.get("name")
    if not isinstance(name, str):
        raise PageError(
            f"{path.name} has no name for its variant to become a part of: "
            "add --name VALUE"
        )
    return name


def _variants(names, path):
    """Returns the names of the variants, all of which exist."""
    if names is None:
        return []
    if not isinstance(names, str):
        raise PageError(f"variant is one name, or several as a+b, not {names}")
    names = names.split("+")
    known = sorted(p.stem for p in (path.parent / "variants").glob("*.yaml"))
    for name in names:
        if names.count(name) > 1:
            raise PageError(f"variant {name!r} is asked for twice")
        if name not in known:
            raise PageError(
                f"there is no variant {name!r} beside {path.name}; "
                + did_you_mean(name, known)
            )
    return names


def _refuse_placeholders(tree, path):
    """Raises a PageError if a key still waits for its value."""
    waiting = [k for k, v in tree.items() if _tag(v) == "!PLACEHOLDER"]
    if waiting:
        flags = " ".join(f"--{key} VALUE" for key in waiting)
        raise PageError(f"{path.name} leaves open what only you know: {flags}")


def _read(path):
    """Returns a page as a tree that keeps its tags."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no page at {path}.")
    try:
        with open(path, encoding="utf-8") as file:
            tree = YAML().load(file)
    except YAMLError as error:
        words = _yaml_words(error)
        raise PageError(f"{path} is no valid YAML: {words}") from error
    if not isinstance(tree, Mapping):
        raise PageError(f"{path} is empty or no mapping of keys to values.")
    return tree


def _yaml_words(error):
    """Returns what is wrong with a YAML text in one line, and where."""
    mark = getattr(error, "problem_mark", None)
    words = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"{words} (line {mark.line + 1})" if mark else words


def _as_tree(overrides):
    """Returns overrides, which may be text, as a tree."""
    if not isinstance(overrides, str):
        return overrides
    try:
        tree = YAML().load(overrides)
    except YAMLError as error:
        words = _yaml_words(error)
        raise PageError(f"The overrides are no valid YAML: {words}") from error
    if not isinstance(tree, Mapping):
        raise PageError(f"The overrides are no keys and values: {overrides}")
    return tree


def _named(tree, path):
    """Returns the tree as a stream that knows where parts are looked for.

    A reference is found only behind what it refers to. So parts come first,
    before them the keys that they are given, and before all the seed.
    """
    parts = [key for key in tree if _tag(tree[key]).startswith("!include:")]
    front = [key for part in parts for key in [*_referred(tree, part), part]]
    if "__set_seed" in tree:
        front = [*_referred(tree, "__set_seed"), "__set_seed", *front]
    for key in reversed(list(dict.fromkeys(front))):
        tree.move_to_end(key, last=False)
    stream = io.StringIO()
    YAML().dump(tree, stream)
    stream.seek(0)
    stream.name = str(path)
    return stream


def _referred(tree, key):
    """Returns the root keys that a key refers to, the farthest first."""
    stream = io.StringIO()
    YAML().dump({key: tree[key]}, stream)
    found = []
    for name in _REFERENCE.findall(stream.getvalue()):
        if name in tree and name != key:
            found += [*_referred(tree, name), name]
    return found


def _tag(node):
    tag = getattr(node, "tag", None)
    return (getattr(tag, "value", None) or "") if tag is not None else ""


def _lay_over(tree, changes, path, where="", is_open=False):
    """Puts changes into a tree; plain mappings take known keys only."""
    open_body = is_open or _tag(tree).startswith(MAKERS)
    for key, value in changes.items():
        known = key in tree
        if not known and not open_body:
            raise PageError(_unknown(path, where, key, tree))
        if known:
            _refuse_other_kind(tree[key], value, path, f"{where}{key}")
        if (
            known
            and isinstance(value, Mapping)
            and isinstance(tree[key], Mapping)
            and not _tag(value)
        ):
            if not _tag(tree[key]):
                # YAML's aliases are one mapping in two places, of which the
                # other keeps its values. What is tagged is one object.
                tree[key] = tree[key].copy()
            _lay_over(tree[key], value, path, f"{where}{key}: ", is_open)
        else:
            tree[key] = value


def _refuse_other_kind(old, new, path, where):
    """Raises a PageError if a value is put where another kind is wanted.

    What is tagged becomes something else, and null leaves a thing out; both
    pass. Text gives way to any plain value, such as a folder named 2024.
    """
    given = None if _tag(new) else _kind(new)
    is_open = _tag(old) and not isinstance(old, Mapping)
    if is_open and given and _tag(old).startswith(MAKERS):
        raise PageError(
            f"{path.name}: {where} is {_tag(old)}, and what replaces it must "
            f"say what it is, as '!new:package.Class {{...}}', not {given}: "
            f"{new}"
        )
    wanted = None if is_open else _kind(old)
    if None in (wanted, given) or wanted == given:
        return
    if wanted == TEXT and given not in (KEYS, LIST):
        return
    raise PageError(
        f"{path.name}: {where} must be {wanted}, not {given}: {new}"
    )


def _kind(node):
    """Returns in words what a plain value is; None if nothing or unknown."""
    for kind, types in KINDS.items():
        if isinstance(node, types):
            return kind
    return None


def _check(node, path, where):
    """Raises a PageError if some key below this node is read by nobody."""
    tag = _tag(node)
    if tag.startswith("!include:"):
        body = node if isinstance(node, (Mapping, list)) else node.value
        if body and not isinstance(body, Mapping):
            raise PageError(
                f"{path.name}: {where}{tag} takes {KEYS}, not {body}"
            )
        _check_part(body or {}, tag.removeprefix("!include:"), path, where)
    if isinstance(node, list):
        for i, value in enumerate(node):
            _check(value, path, f"{where}[{i}] ")
        return
    if not isinstance(node, Mapping):
        return
    if tag.startswith(("!new:", "!name:", "!apply:")):
        _check_arguments(node, tag.split(":", 1)[1], path, where)
    for key, value in node.items():
        _check(value, path, f"{where}{key}: ")


def _check_part(body, filename, path, where):
    """Checks a part, and what a page hands to it."""
    part_path = path.parent / filename
    part = _read(part_path)
    needs = _needs(part, part_path)
    for key, value in body.items():
        if key not in part and key not in needs:
            known = [*part, *needs]
            raise PageError(_unknown(part_path, where, key, known))
        old = part.get(key)
        _refuse_other_kind(old, value, part_path, f"{where}{key}")
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            _lay_over(old, value, part_path, f"{where}{key}: ")
    missing = [key for key in needs if key not in body]
    if missing:
        names = ", ".join(missing)
        raise PageError(f"{path.name}: {where}{filename} needs {names}")
    _check(part, part_path, where)


def _needs(part, path):
    """Returns the keys that a part refers to and leaves to the page."""
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
    names = _REFERENCE.findall(text)
    return [name for name in dict.fromkeys(names) if name not in part]


def _check_arguments(node, dotted, path, where):
    target = pydoc.locate(dotted)
    if target is None:
        raise PageError(f"{path.name}: {where}there is no {dotted}")
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return  # written in C: the call itself will say
    kinds = {p.kind for p in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return
    for key in node:
        if key not in parameters:
            raise PageError(_unknown(path, where, key, parameters, dotted))


def _unknown(path, where, key, known, owner=None):
    """Returns a message about a key that nobody reads."""
    owner = f" in {owner}" if owner else ""
    hint = did_you_mean(key, known)
    return f"{path.name}: {where}no key {key!r}{owner}; {hint}"


def did_you_mean(key, known):
    """Returns the end of a message about a key that is not known.

    Arguments
    ---------
    key : str
        What was written.
    known : list of str
        What could have been.

    Returns
    -------
    str
        The likeliest of them, or all.

    Example
    -------
    >>> did_you_mean("rate", ["lr", "rates"])
    "did you mean 'rates'?"
    >>> did_you_mean("x", ["lr", "rates"])
    'it knows lr, rates'
    """
    names = [str(name) for name in known]
    close = difflib.get_close_matches(str(key), names, 1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"it knows {', '.join(names)}"
