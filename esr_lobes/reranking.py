"""Hits judged again by late interaction, over the words of their audio.

Authors
 * The esr_lobes contributors
"""

from dataclasses import replace

import torch
from speechbrain.utils.logger import get_logger

from esr_lobes.audio import AudioError
from esr_lobes.batches import as_batch, in_batches, read_segments
from esr_lobes.errors import MendableError
from esr_lobes.index import Segment
from esr_lobes.late_interaction import LEAST, score_tokens, unit_tokens

logger = get_logger(__name__)

TEXT_BATCH = 64


class WordRanker:
    """What a retriever can do whose speech side knows words.

    For a class with ``mods``, ``device``, ``hparams``, ``inference_ctx`` and
    ``_windows``, as :class:`esr_lobes.inference.EncoderRetriever`. CLSR and
    the cascades know words: they have ``hear_words``, which gives a
    :class:`~esr_lobes.late_interaction.HeardWords`.
    """

    @property
    def knows_words(self):
        """Whether the speech side recognises words."""
        return hasattr(self.mods.speech_encoder, "hear_words")

    def need_words(self):
        """Raises a MendableError if the speech side knows no words."""
        if not self.knows_words:
            kind = type(self.mods.speech_encoder).__name__
            raise MendableError(
                f"the speech side of this retriever ({kind}) knows no words, "
                "which late interaction compares: take a CLSR or a cascade "
                "(esr cascade)"
            )

    @torch.no_grad()
    def encode_text_tokens(self, texts):
        """Returns one embedding a word piece of each text.

        Arguments
        ---------
        texts : str or list of str
            One or many.

        Returns
        -------
        list of torch.Tensor
            Unit-length rows, float32 of shape [token, channel] on the CPU,
            for each text. See :mod:`esr_lobes.late_interaction` for what is
            a token.

        Raises
        ------
        MendableError
            If the speech side knows no words to compare them with.
        """
        self.need_words()
        texts = [texts] if isinstance(texts, str) else list(texts)
        rows = []
        with self.inference_ctx:
            for i in range(0, len(texts), TEXT_BATCH):
                read = self.mods.text_encoder.read(texts[i : i + TEXT_BATCH])
                rows += unit_tokens(*read[1:])
        return rows

    @torch.no_grad()
    def hear_words(self, wavs, wav_lens=None):
        """Returns what is said in clips: embeddings, their tokens', words.

        Arguments
        ---------
        wavs, wav_lens
            As for ``encode_batch``.

        Returns
        -------
        embeddings : torch.Tensor
            Those of ``encode_batch``, of shape [batch, embedding].
        tokens : list of torch.Tensor
            Unit-length rows, float32 of shape [token, channel] on the CPU,
            for each clip; none where nothing was said.
        texts : list of str
            The words.

        Raises
        ------
        MendableError
            If the speech side knows no words.
        """
        self.need_words()
        wavs, wav_lens = as_batch(wavs, wav_lens, self.device)
        with self.inference_ctx:
            heard = self.mods.speech_encoder.hear_words(wavs, wav_lens)
            rows = self.mods.speech_projection(heard.vectors).float()
        embeddings = torch.nn.functional.normalize(rows, dim=-1)
        return embeddings, unit_tokens(heard.states, heard.counts), heard.texts

    def rerank(self, question, hits, batch_size=16, progress=False):
        """Returns hits in the order of MaxSim, read and heard once more.

        One embedding a clip is quick to search, late interaction looks more
        closely: let the one find many candidates and the other rank them.
        Here a candidate costs what embedding it did.

        Arguments
        ---------
        question : str
            What is asked.
        hits : list of Hit
            Of any index over files; those that are longer than this
            retriever's ``max_seconds`` have the score of their best window.
        batch_size : int
            Clips a pass; those of like length go together.
        progress : bool
            Whether to show a bar.

        Returns
        -------
        list of Hit
            Best first. The score is MaxSim, from -1 to 1 (see
            :func:`esr_lobes.late_interaction.maxsim`), and no cosine of the
            index: it has neither ``z`` nor ``percentile``. Where no word was
            heard it is -1; so it is, with a warning, where a file is gone or
            cannot be read, and such hits are the last.

        Raises
        ------
        MendableError
            If the speech side knows no words, or the question has none.
        AudioError
            If no file can be read.

        Example
        -------
        ::

            with open_index("lectures") as index:  # esr_lobes.searching
                question = "why do tides come twice a day?"
                hits = index.search(content=question, k=100)
                best = index.encoders["content"].rerank(question, hits)[:10]
        """
        asked = self.encode_text_tokens(question)
        if len(asked[0]) == 0:
            raise MendableError(f"there is no word in {question!r}")
        windows, owners = [], []
        for i, hit in enumerate(hits):
            segment = hit.segment
            times = self._windows(segment.duration)
            for first, last in times or [(0.0, segment.duration)]:
                start, stop = segment.start + first, segment.start + last
                windows.append(
                    Segment(segment.path, start, stop, segment.channel)
                )
                owners.append(i)
        scores, errors = [LEAST] * len(hits), {}
        for places, batch in in_batches(
            windows, self._read_all, batch_size, progress, on_error="skip"
        ):
            if isinstance(batch, AudioError):
                if batch.reason != "silent":  # in which nothing is said
                    errors[places[0]] = batch
                continue
            tokens = self.hear_words(batch)[1]
            row = score_tokens(asked, tokens, self.device)[0].tolist()
            for place, score in zip(places, row, strict=True):
                i = owners[place]
                scores[i] = max(scores[i], score)
        _warn_of(errors, windows)
        unread = {owners[place] for place in errors}
        # The same words are equal but for rounding, which differs from batch
        # to batch: then what was better before comes first.
        order = sorted(
            range(len(hits)), key=lambda i: (-round(scores[i], 5), i in unread)
        )
        return [
            replace(
                hits[i], score=scores[i], rank=rank, z=None, percentile=None
            )
            for rank, i in enumerate(order)
        ]

    def _read_all(self, segments):
        """Returns an iterator over waveforms, also of what is very short."""
        return read_segments(segments, self.hparams.sample_rate, 0.0)


def _warn_of(errors, windows):
    """Names the files that could not be read; raises an error if all are."""
    if errors and len(errors) == len(windows):
        raise next(iter(errors.values()))
    for error in {error.path: error for error in errors.values()}.values():
        logger.warning(
            "not heard again: %s. Bring the index up to date (esr index).",
            error,
        )
