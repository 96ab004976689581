"""The words that speech is recognised as: those that the text encoder reads.

A recogniser whose tokens are the text encoder's own needs no way from one
vocabulary to another: what it recognises can be looked up in the encoder's
table of word embeddings.

Authors
 * The esr_lobes contributors
"""

import re
import unicodedata

import torch
from speechbrain.utils.edit_distance import accumulatable_wer_stats

from esr_lobes.errors import MendableError

CONTINUES = "##"
UNUSED = re.compile(r"\[unused\d+\]")
# Blocks of ideographs, which are words of their own in BERT's vocabularies.
HAN = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_HAN = "".join(f"{chr(first)}-{chr(last)}" for first, last in HAN)
BETWEEN_HAN = re.compile(f"(?<=[{_HAN}]) (?=[{_HAN}])")


class Vocabulary:
    """The WordPiece vocabulary of a BERT-like text encoder.

    Arguments
    ---------
    tokenizer : transformers.PreTrainedTokenizerBase
        Of the text encoder.
    size : int, optional
        Rows of the encoder's table of word embeddings, which may have a few
        more than there are words.

    Raises
    ------
    MendableError
        If the vocabulary is not one of word pieces.

    Attributes
    ----------
    banned_ids : list of int
        What is never said: ``[PAD]``, ``[CLS]``, ``[SEP]``, ``[MASK]``,
        ``[unused...]``, and rows that no word has. ``[UNK]`` stays: texts
        hold it, too.
    """

    def __init__(self, tokenizer, size=None):
        model = getattr(tokenizer, "backend_tokenizer", None)
        model = getattr(model, "model", None)
        prefix = getattr(model, "continuing_subword_prefix", None)
        if prefix != CONTINUES:
            raise MendableError(
                f"the vocabulary of {type(tokenizer).__name__} is not one of "
                "word pieces (##): content retrieval needs a text encoder of "
                "BERT's kind, such as bge-base-en-v1.5 or minilm"
            )
        self.tokenizer = tokenizer
        self.size = len(tokenizer) if size is None else size
        self.cls_id = tokenizer.cls_token_id
        self.sep_id = tokenizer.sep_token_id
        banned = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        banned.update(range(len(tokenizer), self.size))
        for word, i in tokenizer.get_vocab().items():
            if UNUSED.fullmatch(word):
                banned.add(i)
        self.banned_ids = sorted(banned)

    def __len__(self):
        """Returns how many tokens a recogniser tells apart."""
        return self.size

    def encode(self, text):
        """Returns the tokens of a transcript, none added in front or behind.

        Arguments
        ---------
        text : str
            The transcript.

        Returns
        -------
        torch.Tensor
            Ids, long, of shape [token].
        """
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)
        return torch.tensor(ids["input_ids"], dtype=torch.long)

    def encode_batch(self, texts):
        """Returns the tokens of transcripts, padded.

        Arguments
        ---------
        texts : list of str
            The transcripts.

        Returns
        -------
        ids : torch.Tensor
            Long, of shape [batch, token]; 0 behind the end of a row.
        lengths : torch.Tensor
            Tokens in each row, long, of shape [batch].
        """
        rows = [self.encode(text) for text in texts]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return ids, torch.tensor([len(row) for row in rows])

    def decode(self, ids):
        """Returns the words of recognised tokens.

        Arguments
        ---------
        ids : torch.Tensor or list of int
            Tokens of one utterance.

        Returns
        -------
        str
            Words with one blank between each two, Chinese without any;
            pieces are joined.
        """
        ids = torch.as_tensor(ids, dtype=torch.long).tolist()
        pieces = self.tokenizer.convert_ids_to_tokens(ids)
        return join_pieces(pieces)

    def decode_batch(self, ids, lengths):
        """Returns the words of recognised tokens, one text a row.

        Arguments
        ---------
        ids : torch.Tensor
            Long, of shape [batch, token].
        lengths : torch.Tensor
            Tokens in each row, long, of shape [batch].

        Returns
        -------
        list of str
        """
        rows = zip(ids.tolist(), lengths.tolist(), strict=True)
        return [self.decode(row[:n]) for row, n in rows]


def join_pieces(pieces):
    """Returns the words that word pieces make up.

    Arguments
    ---------
    pieces : list of str
        What goes on with a word begins with ``##``.

    Returns
    -------
    str
        Words with one blank between each two, but none between ideographs.

    Example
    -------
    >>> join_pieces(["the", "bron", "##cos", "won"])
    'the broncos won'
    >>> join_pieces(["##cos"])
    'cos'
    >>> join_pieces(["在", "nba", "打", "球"])
    '在 nba 打球'
    """
    text = " ".join(pieces).replace(f" {CONTINUES}", "")
    return BETWEEN_HAN.sub("", text.removeprefix(CONTINUES))


def normalize_text(text):
    """Returns a text as it is compared with another: words alone.

    Lower case, no accents, blanks in place of punctuation and symbols (also
    within ``don't``, as BERT splits it), and each ideograph a word of its
    own, so that Chinese is judged by characters.

    Arguments
    ---------
    text : str
        A transcript.

    Returns
    -------
    str
        Words with one blank between each two.

    Example
    -------
    >>> normalize_text("In 1999, Beyoncé didn't.")
    'in 1999 beyonce didn t'
    >>> normalize_text("1786年2月，「梵語」")
    '1786 年 2 月 梵 語'
    """
    marks = []
    for mark in unicodedata.normalize("NFKD", text).lower():
        kind = unicodedata.category(mark)
        if kind == "Mn":
            continue
        if any(first <= ord(mark) <= last for first, last in HAN):
            marks.append(f" {mark} ")
        else:
            marks.append(mark if kind[0] in "LMN" else " ")
    words = "".join(marks).split()
    return unicodedata.normalize("NFC", " ".join(words))


def word_errors(reference, hypothesis):
    """Returns how many words of a transcript are wrong, and how many it has.

    Arguments
    ---------
    reference : str
        What was said.
    hypothesis : str
        What was recognised.

    Returns
    -------
    n_errors : int
        Words put in, left out or taken for others.
    n_words : int
        Words of the reference.

    Example
    -------
    >>> word_errors("Kids are talking.", "kids were talking to")
    (2, 3)
    """
    stats = _count([reference], [hypothesis])
    return _n_errors(stats), stats["num_ref_tokens"]


def word_error_rate(references, hypotheses):
    """Returns the percentage of wrong words over many transcripts.

    Arguments
    ---------
    references : list of str
        What was said.
    hypotheses : list of str
        What was recognised, in the same order.

    Returns
    -------
    float
        It may exceed 100; not a number if the references hold no word.

    Example
    -------
    >>> word_error_rate(["one two three", "four"], ["one three", "four"])
    25.0
    """
    if len(references) != len(hypotheses):
        raise ValueError(
            f"{len(references)} references for {len(hypotheses)} hypotheses"
        )
    return float(_count(references, hypotheses)["WER"])


def _count(references, hypotheses):
    """Returns SpeechBrain's counts over normalised words."""
    words = [
        [normalize_text(text).split() for text in texts]
        for texts in (references, hypotheses)
    ]
    return accumulatable_wer_stats(*words)


def _n_errors(stats):
    return stats["insertions"] + stats["deletions"] + stats["substitutions"]
