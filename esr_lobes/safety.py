"""What may be opened of a retriever that somebody else has written.

A HyperPyYAML page can call any function, and a pickled checkpoint too. A
retriever's page is data: it is read twice here, without building anything,
by the parser that the loader uses. First as it stands, because resolving its
references would already run ``!include`` and ``!applyref``; then with its
references and overrides resolved, which is the text the loader builds from
and where quotes are gone and joined strings have become new values.

What stands in few lines for more than a machine holds is refused as well,
see :mod:`esr_lobes.limits`; the modules themselves are as large as their
numbers say. Links are followed, because a hub's cache is made of them: who
may write links into a folder is trusted with what they lead to.

Authors
 * The esr_lobes contributors
"""

import copy
import json
import re
from io import StringIO
from pathlib import Path

import ruamel.yaml
from hyperpyyaml import resolve_references
from hyperpyyaml.core import recursive_update

from esr_lobes.encoders.text import PACKAGED
from esr_lobes.errors import MendableError
from esr_lobes.limits import check_aliases, check_growth, check_text_size

# The classes a page may build, by their exact names: a prefix would not do,
# because `speechbrain.utils.data_utils.os.system` begins well, too. A class
# belongs here if no argument of its own makes it run or fetch anything;
# `source` and `trust_pickle` are looked at below.
ALLOWED = frozenset(
    {
        "esr_lobes.cascade.encoder.CascadeEncoder",
        "esr_lobes.cascade.huggingface.HuggingFaceRecogniser",
        "esr_lobes.cascade.pocketsphinx.PocketSphinx",
        "esr_lobes.clsr.clsr.Unprojected",
        "esr_lobes.clsr.speech.ClsrSpeech",
        "esr_lobes.clsr.speech.PooledParaformer",
        "esr_lobes.encoders.clap.ClapSpeech",
        "esr_lobes.encoders.clap.ClapText",
        "esr_lobes.encoders.compact.CompactEncoder",
        "esr_lobes.encoders.emotion2vec.Emotion2vec",
        "esr_lobes.encoders.huggingface.HuggingFaceSpeech",
        "esr_lobes.encoders.text.TextEncoder",
        "esr_lobes.heads.ModalityDiscriminator",
        "esr_lobes.heads.Projection",
        "esr_lobes.heads.StyleClassifier",
    }
)

# Those that load a pretrained backbone: without a source they would have
# weights at random, or none.
SOURCED = frozenset(
    {
        "esr_lobes.cascade.huggingface.HuggingFaceRecogniser",
        "esr_lobes.clsr.speech.ClsrSpeech",
        "esr_lobes.clsr.speech.PooledParaformer",
        "esr_lobes.encoders.clap.ClapSpeech",
        "esr_lobes.encoders.clap.ClapText",
        "esr_lobes.encoders.emotion2vec.Emotion2vec",
        "esr_lobes.encoders.huggingface.HuggingFaceSpeech",
        "esr_lobes.encoders.text.TextEncoder",
    }
)
_TEXT_ENCODER = "esr_lobes.encoders.text.TextEncoder"

_CORE = "tag:yaml.org,2002:"
_PLAIN = frozenset(
    _CORE + kind
    for kind in "null bool int float str seq map merge timestamp".split()
)
_REFERENCES = frozenset({"!ref", "!copy"})
_CALLS = ("!new:", "!name:")
# The loader takes such a text for a tuple, and its inside for any YAML. Quotes
# protect it only from the second page on that a process loads.
_TUPLE = re.compile(r"\s*\(.*\)\s*", re.DOTALL)
# Settings by which a backbone's JSON names code or another place to load.
_CODE_SETTINGS = frozenset(
    {
        "auto_map",
        "configuration_files",
        "fast_tokenizer_files",
        "file_path_metas",
        "quantization_config",
        "transformers_weights",
    }
)
_ATTENTIONS = ("eager", "sdpa")
# Their keys are words, not settings.
_VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})
# What a backbone is made of; whatever else lies there may be a pickle, which
# no suffix gives away.
_DATA = frozenset({".json", ".model", ".safetensors", ".txt"})
_NAMES = frozenset(
    {".gitattributes", "LICENSE", "README.md", "chat_template.jinja"}
    | {"config.yaml"}
)
# What parsing and resolving raise on what they cannot read.
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    ruamel.yaml.error.YAMLError,
)


class UnsafePageError(MendableError):
    """A page, or a folder it names, that could run code when opened."""


class _Loader(ruamel.yaml.SafeLoader):
    """Parses what the loader parses; a call becomes a note of itself."""

    def note(self, called, node):
        """Returns the arguments of a call, and remembers both."""
        arguments = {}
        if isinstance(node, ruamel.yaml.MappingNode):
            arguments = self.construct_mapping(node, deep=True)
        self.calls.append((called, arguments))
        return arguments


for _prefix in _CALLS:
    _Loader.add_multi_constructor(_prefix, _Loader.note)


def _refuse(name, line, what):
    raise UnsafePageError(
        f"{name}, line {line}: {what}. The page was not opened. Only if you "
        "trust its author like that of a program you run, pass "
        "trust_source=True."
    )


def _walk(node, seen):
    """Yields every node under this one once, keys and aliases included."""
    if id(node) in seen:
        return
    seen.add(id(node))
    yield node
    if isinstance(node, ruamel.yaml.MappingNode):
        for pair in node.value:
            for child in pair:
                yield from _walk(child, seen)
    elif isinstance(node, ruamel.yaml.SequenceNode):
        for child in node.value:
            yield from _walk(child, seen)


def _check_nodes(document, name, allowed, tags):
    """Refuses any node whose tag is neither plain nor a call we know."""
    for node in _walk(document, set()):
        tag, line = node.tag, node.start_mark.line + 1
        is_scalar = isinstance(node, ruamel.yaml.ScalarNode)
        if is_scalar and _TUPLE.fullmatch(node.value):
            tag = "!tuple"
        call = next((c for c in _CALLS if tag.startswith(c)), None)
        if call is None:
            if tag not in tags:
                shown = tag.replace(_CORE, "!!")
                _refuse(name, line, f"the tag {shown} is not for retrievers")
        elif tag[len(call) :] not in allowed:
            names = ", ".join(sorted(allowed))
            _refuse(name, line, f"{tag} is none of the classes known: {names}")
        elif not _gives_names(node):
            _refuse(name, line, f"{tag} must be given its arguments by name")


def _gives_names(node):
    """Whether a call has named arguments, or none."""
    if isinstance(node, ruamel.yaml.ScalarNode):
        return node.value == ""
    return isinstance(node, ruamel.yaml.MappingNode)


def _check_text(text, name, allowed):
    """Refuses a text whose tags are not for retrievers, as it stands."""
    try:
        check_text_size(text)
        documents = list(ruamel.yaml.YAML().compose_all(text))
        for document in documents:
            check_aliases(document)
    except (ruamel.yaml.error.YAMLError, RecursionError) as error:
        raise UnsafePageError(f"{name} is not YAML: {error}") from error
    except ValueError as error:
        raise UnsafePageError(f"{name}: {error}") from error
    for document in documents:
        _check_nodes(document, name, allowed, _PLAIN | _REFERENCES)
    if len(documents) != 1:
        raise UnsafePageError(
            f"{name} must hold one document, it holds {len(documents)}"
        )
    if not isinstance(documents[0], ruamel.yaml.MappingNode):
        raise UnsafePageError(f"{name} must be a list of keys and values")


def _overrides_text(overrides):
    """Returns overrides as the text that the loader would make of them."""
    if isinstance(overrides, str):
        return overrides
    stream = StringIO()
    try:
        ruamel.yaml.YAML().dump(overrides, stream)
    except ruamel.yaml.representer.RepresenterError as error:
        raise UnsafePageError(
            f"overrides must be plain values: {error}"
        ) from error
    return stream.getvalue()


def check_page(
    text, name="hyperparams.yaml", overrides=None, allowed=ALLOWED, folder="."
):
    """Returns nothing for a page that can run no code, refuses any other.

    Arguments
    ---------
    text : str
        The page itself, not its path.
    name : str
        What messages call it.
    overrides : dict or str, optional
        What the loader will be given to lay over it.
    allowed : collection of str
        Exact dotted names of the classes that it may build.
    folder : str
        Where everything must lie that a ``source`` in it names.

    Raises
    ------
    UnsafePageError
        Naming file, line and tag, or the argument.
    FileNotFoundError
        If a ``source`` is not there.

    Example
    -------
    >>> check_page("width: 4\\ntwice: !ref <width> * 2")
    >>> check_page("x: !apply:os.getcwd []")
    Traceback (most recent call last):
    esr_lobes.safety.UnsafePageError: hyperparams.yaml, line 1: the tag \
!apply:os.getcwd is not for retrievers. The page was not opened. Only if you \
trust its author like that of a program you run, pass trust_source=True.
    """
    _check_text(text, name, allowed)
    if overrides:
        _check_text(_overrides_text(overrides), "overrides", allowed)

    # Now resolving runs nothing, so that we can see what will be built.
    try:
        _check_growth(text, overrides)
        # The resolver writes into the mappings that it is given.
        resolved = resolve_references(text, copy.deepcopy(overrides))
        loader = _Loader(resolved.getvalue())
        loader.calls = []
        document = loader.get_single_node()
        check_aliases(document)
        _check_nodes(document, f"{name} (references resolved)", allowed, _PLAIN)
        loader.construct_document(document)
    except UnsafePageError:
        raise
    except _UNREADABLE as error:
        raise UnsafePageError(
            f"{name} cannot be read: {type(error).__name__}: {error}"
        ) from error
    for called, arguments in loader.calls:
        _check_arguments(called, arguments, name, folder)


def _check_growth(text, overrides):
    """Refuses a page that would become large, with its overrides."""
    yaml = ruamel.yaml.YAML()
    tree = yaml.load(text)
    if isinstance(overrides, str):
        overrides = yaml.load(overrides)
    recursive_update(tree, copy.deepcopy(overrides or {}))
    given = {"folder"} & set(overrides or {})
    check_growth(tree, given)


def _check_arguments(called, arguments, name, folder):
    """Refuses arguments by which a class would run or guess something."""
    if arguments.get("trust_pickle", False) is not False:
        raise UnsafePageError(
            f"{name}: trust_pickle lets a backbone run the code in its "
            "pickles. Export the retriever again, which writes safetensors; "
            "only if you trust its author like that of a program you run, "
            "pass trust_source=True."
        )
    if "source" in arguments:
        _check_source(called, arguments["source"], name, folder)
    elif called in SOURCED:
        raise UnsafePageError(
            f"{name}: {called} has no source, so that its weights would not "
            "be those of its author. Export the retriever again."
        )


def _check_source(called, source, name, folder):
    """Refuses a source that is no folder of plain data inside the folder."""
    if not isinstance(source, str):
        raise UnsafePageError(f"{name}: source {source!r} is no text")
    if source in PACKAGED and called == _TEXT_ENCODER:
        return
    inside = Path(folder).resolve()
    if not Path(source).resolve().is_relative_to(inside):
        raise UnsafePageError(
            f"{name}: source {source!r} does not lie in {inside}. A retriever "
            "brings its backbones along; pass trust_source=True to load this "
            "one from elsewhere."
        )
    if not Path(source).is_dir():
        # What is not here would be taken for a hub id.
        raise FileNotFoundError(
            f"{name}: no backbone at {source}; is the retriever complete?"
        )
    check_backbone(source)


def check_backbone(folder):
    """Refuses a backbone's folder that asks for code or for files elsewhere.

    So is one with files of any kind that a backbone is not made of: a pickle
    may have any name. Links are followed.

    Arguments
    ---------
    folder : str
        As written by ``save_pretrained`` of transformers.

    Raises
    ------
    UnsafePageError
        Naming the file, and the setting in it.
    """
    folder = Path(folder)
    if (folder / "adapter_config.json").exists():
        raise UnsafePageError(
            f"{folder / 'adapter_config.json'}: adapters load another model; "
            "merge them into the backbone, or pass trust_source=True"
        )
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        is_data = path.suffix in _DATA or path.name in _NAMES
        if not (is_data and path.is_file()):
            raise UnsafePageError(
                f"{path} is none of the files that a backbone is made of, and "
                "pickles can hold code: save the backbone as safetensors, "
                "remove what else lies there, or pass trust_source=True if "
                "you trust its author"
            )
        if path.suffix == ".json" and path.name not in _VOCABULARIES:
            _check_settings(path)


def _check_settings(path):
    """Refuses a file of settings that names code or files elsewhere."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        pairs = list(_settings(settings))
    except (ValueError, RecursionError) as error:
        raise UnsafePageError(f"{path} is not JSON: {error}") from error
    for key, value in pairs:
        is_attention = key.endswith("attn_implementation")
        is_code = key in _CODE_SETTINGS or (
            is_attention and value not in _ATTENTIONS
        )
        if is_code and value is not None:
            raise UnsafePageError(
                f"{path}: {key} can bring code or files from elsewhere; "
                "remove it, or pass trust_source=True if you trust its author"
            )
        if key == "weight_map":
            _check_shards(value, path)


def _check_shards(shards, path):
    """Refuses an index of weights that leads out of its folder."""
    names = shards.values() if isinstance(shards, dict) else [shards]
    for name in names:
        is_plain = isinstance(name, str) and Path(name).name == name
        if not is_plain or not name.endswith(".safetensors"):
            raise UnsafePageError(
                f"{path}: {name!r} is no file of weights beside it"
            )


def _settings(tree):
    """Yields key and value of every mapping in JSON, at any depth."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key, value
            yield from _settings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _settings(value)
