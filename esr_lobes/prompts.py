"""Prompts as data: templates and phrases that describe a speaking style.

A prompt is a template whose slot holds a phrase of the style: "A person
speaking in a {} tone" and "furious" give "A person speaking in a furious
tone". Banks are YAML files::

    templates: ["A person speaking in a {} tone"]
    styles:
        angry: [angry, furious]

Two come with the package, ``train`` and ``held_out``, which share neither
template nor phrase; any other is read from its path.

Authors
 * The esr_lobes contributors
"""

import re
from collections import defaultdict
from pathlib import Path

import yaml

from esr_lobes.errors import MendableError

SLOT = "{}"
FOLDER = Path(__file__).parent / "data"
BANKS = {
    "train": FOLDER / "prompts_train.yaml",
    "held_out": FOLDER / "prompts_held_out.yaml",
    "plain": FOLDER / "prompts_plain.yaml",
}

_ARTICLE = re.compile(r"\b([Aa])n?(\s+)$")
_VOWEL_SOUND = re.compile(
    r"""(?!  # letters that are vowels, but are spoken with a consonant first
            uni[cflostvq](?!en) | unanim | us[eu] | usab | ut[eio]
            | eu | ew | one\b | once\b
        ) [aeiou]
        | hour | honest | hono | heir  # and a consonant that is not spoken
    """,
    re.IGNORECASE | re.VERBOSE,
)


class PromptBankError(MendableError):
    """A prompt bank that cannot be used, with what to change in it."""


def fill(template, phrase):
    """Returns the prompt, with "a" or "an" before the phrase as it is spoken.

    Arguments
    ---------
    template : str
        A sentence with one slot "{}".
    phrase : str
        What is put there.

    Returns
    -------
    str
        The prompt. Only an article right before the slot is changed.

    Example
    -------
    >>> fill("Speech in a {} tone", "angry")
    'Speech in an angry tone'
    >>> fill("An {} voice", "unique")
    'A unique voice'
    """
    before, after = template.split(SLOT)
    article = r"\1n\2" if _VOWEL_SOUND.match(phrase) else r"\1\2"
    return _ARTICLE.sub(article, before) + phrase + after


class PromptBank:
    """Templates and, for every style, the phrases to fill them with.

    Arguments
    ---------
    templates : list[str]
        Sentences with one slot "{}" each.
    synonyms : dict[str, list[str]]
        Phrases of every style; each fits each template.
    name : str
        What to call the bank in messages and tables.
    unique : bool
        Whether a phrase may belong to one style only. A bank where some
        belong to two (the paper's, for one) is read with False; ask
        `positives` then which styles a prompt stands for.

    Raises
    ------
    PromptBankError
        If a template has not one slot, a list is empty, an entry is no
        text or is repeated, or a phrase has two styles.

    Example
    -------
    >>> bank = PromptBank(["a {} voice"], {"sad": ["sad", "unhappy"]})
    >>> bank.prompts("sad")
    ['a sad voice', 'an unhappy voice']
    """

    def __init__(self, templates, synonyms, name="prompts", unique=True):
        self.name = name
        self.unique = unique
        self.templates = self._entries(templates, "templates")
        for template in self.templates:
            if template.count(SLOT) != 1:
                raise self._error(
                    f"template {template!r} has {template.count(SLOT)} slots;"
                    " write {} once, where the phrase goes"
                )
        if not isinstance(synonyms, dict) or not synonyms:
            raise self._error(
                "styles must map at least one style to its phrases"
            )
        for style in synonyms:
            if not isinstance(style, str) or not style.strip():
                raise self._error(f"style {style!r} is no text; quote it")
        self.styles = sorted(synonyms)
        self.synonyms = {
            style: self._entries(synonyms[style], f"style {style!r}")
            for style in self.styles
        }
        self._prompts = {
            style: [
                fill(template, phrase)
                for template in self.templates
                for phrase in self.synonyms[style]
            ]
            for style in self.styles
        }
        self._positives = _owners(self._prompts)
        if unique:
            self._check_unique()

    @classmethod
    def from_file(cls, path, unique=True):
        """Returns the bank of a YAML file.

        Arguments
        ---------
        path : str or pathlib.Path
            File with the keys `templates` and `styles`.
        unique : bool
            See the class.

        Returns
        -------
        PromptBank
            Named after the file.

        Raises
        ------
        PromptBankError
            If the file is not such a bank.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            content = yaml.safe_load(text)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise PromptBankError(f"{path} is no YAML: {error}") from error
        if not isinstance(content, dict):
            content = {}
        if set(content) != {"templates", "styles"}:
            found = ", ".join(map(str, content)) or "none"
            raise PromptBankError(
                f"{path} must have the keys templates and styles and no "
                f"other (found: {found}); see {BANKS['train']}"
            )
        _check_repeated_keys(node, path)
        return cls(content["templates"], content["styles"], path.stem, unique)

    @classmethod
    def load(cls, name_or_path, unique=True):
        """Returns a bank that comes with the package, or that of a file.

        Arguments
        ---------
        name_or_path : str or pathlib.Path
            "train", "held_out", "plain" (one template and the names of the
            styles) or the path of a YAML file.
        unique : bool
            See the class.

        Returns
        -------
        PromptBank

        Raises
        ------
        FileNotFoundError
            If it is neither a known name nor a file.

        Example
        -------
        >>> len(PromptBank.load("train").styles)
        22
        """
        path = Path(BANKS.get(str(name_or_path), name_or_path))
        if not path.is_file():
            raise FileNotFoundError(
                f"no prompt bank {str(name_or_path)!r}: give one of "
                f"{', '.join(BANKS)}, or the path of a YAML file"
            )
        bank = cls.from_file(path, unique)
        if str(name_or_path) in BANKS:
            bank.name = str(name_or_path)
        return bank

    def prompts(self, style):
        """Returns every prompt of a style, template by template.

        Arguments
        ---------
        style : str
            One of `styles`.

        Returns
        -------
        list[str]
            Templates x phrases, always in the same order.
        """
        self._check_known([style])
        return list(self._prompts[style])

    def draw(self, style, rng):
        """Returns a prompt of a style at random.

        Arguments
        ---------
        style : str
            One of `styles`.
        rng : random.Random
            Where the chance comes from.

        Returns
        -------
        str
            A random template with a random phrase.
        """
        self._check_known([style])
        return rng.choice(self._prompts[style])

    def all_prompts(self):
        """Returns the prompts of all styles as list[str], each text once."""
        texts = (text for style in self.styles for text in self._prompts[style])
        return list({_key(text): text for text in texts}.values())

    def positives(self, prompt):
        """Returns the styles that a prompt stands for.

        Arguments
        ---------
        prompt : str
            One of `all_prompts()`.

        Returns
        -------
        tuple[str]
            One style, or more in a bank read with `unique=False`.

        Raises
        ------
        PromptBankError
            If the bank does not make this prompt.

        Example
        -------
        >>> PromptBank.load("train").positives("mad voice")
        ('angry',)
        """
        if _key(prompt) not in self._positives:
            raise self._error(f"{prompt!r} is none of its prompts")
        return self._positives[_key(prompt)]

    def restrict(self, styles):
        """Returns the bank of some of the styles.

        Arguments
        ---------
        styles : iterable of str
            Some of `styles`.

        Returns
        -------
        PromptBank
            With the same templates, name and order.

        Example
        -------
        >>> PromptBank.load("train").restrict(["sad", "happy"]).styles
        ['happy', 'sad']
        """
        styles = list(styles)
        self._check_known(styles)
        synonyms = {style: self.synonyms[style] for style in styles}
        return PromptBank(self.templates, synonyms, self.name, self.unique)

    def overlap(self, other):
        """Returns what two banks share, which should be nothing for a test.

        Arguments
        ---------
        other : PromptBank
            Another bank.

        Returns
        -------
        list[str]
            Templates and phrases in both, sorted; case is ignored.
        """
        mine, others = self._keys(), other._keys()
        return sorted(mine & others)

    def _keys(self):
        """Returns the keys of the templates and the phrases."""
        phrases = (p for style in self.styles for p in self.synonyms[style])
        return {_key(text) for text in (*self.templates, *phrases)}

    def _entries(self, entries, where):
        """Returns a checked list of texts."""
        if not isinstance(entries, list) or not entries:
            raise self._error(f"{where} must be a list with at least one text")
        seen = set()
        for entry in entries:
            if not isinstance(entry, str) or not entry.strip():
                raise self._error(
                    f"{where} holds {entry!r}, which is no text; "
                    "put it in quotes or take it out"
                )
            if _key(entry) in seen:
                raise self._error(f"{where} holds {entry!r} twice")
            seen.add(_key(entry))
        return [" ".join(entry.split()) for entry in entries]

    def _check_unique(self):
        """Refuses a phrase, or a prompt made of phrases, with two styles."""
        for what, texts in ("phrase", self.synonyms), ("prompt", self._prompts):
            for text, styles in _owners(texts).items():
                if len(styles) > 1:
                    raise self._error(
                        f"{what} {text!r} stands under {' and '.join(styles)};"
                        " keep it in one, or read the bank with unique=False"
                    )

    def _check_known(self, styles):
        """Refuses a style that the bank does not have."""
        unknown = sorted(set(styles) - set(self.styles))
        if unknown:
            raise self._error(
                f"no style {', '.join(unknown)}; it has "
                f"{', '.join(self.styles)}"
            )

    def _error(self, message):
        """Returns the error that names this bank."""
        return PromptBankError(f"prompt bank {self.name!r}: {message}")


def _key(text):
    """Returns the text as it is compared: case and spaces do not count."""
    return " ".join(text.split()).casefold()


def _owners(texts):
    """Returns the key of a text -> its styles, from style -> texts."""
    owners = defaultdict(list)
    for style, entries in texts.items():
        for key in dict.fromkeys(map(_key, entries)):
            owners[key].append(style)
    return {key: tuple(styles) for key, styles in owners.items()}


def _check_repeated_keys(node, path):
    """Refuses a key given twice, of which YAML would drop the first."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                raise PromptBankError(
                    f"{path}, line {key.start_mark.line + 1}: "
                    f"{key.value!r} is there twice; join the two lists"
                )
            seen.add(key.value)
            _check_repeated_keys(value, path)
