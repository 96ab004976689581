"""The trained retriever, for who only wants to search.

A retriever is a folder: one flat ``hyperparams.yaml``, the weights in
``weights.safetensors``, the text backbone in ``text_backbone/``. It is opened
as data, see :mod:`esr_lobes.safety`.

Authors
 * The esr_lobes contributors
"""

import os
from itertools import groupby

import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.fetching import FetchConfig
from speechbrain.utils.logger import get_logger
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from esr_lobes.audio import (
    AudioError,
    cut_windows,
    find_audio,
    read_windows,
)
from esr_lobes.index import SearchIndex, Segment
from esr_lobes.opening import WEIGHTS, fill, find_folder, with_folder
from esr_lobes.preparation import Skip, check_clips
from esr_lobes.safety import check_page, load_weights

logger = get_logger(__name__)

TEXT_BATCH = 64
# A window whose peak stays below -60 dB holds nobody's voice.
SILENCE = 10 ** (-60 / 20)


class EncoderRetriever(Pretrained):
    """Answers a description in words with the clips that sound like it.

    Embeddings are unit-length rows: their inner product is the score.
    ``index`` holds what was embedded from files, ``skipped`` lists what
    could not be.

    Arguments
    ---------
    modules, hparams, run_opts, freeze_params
        As for ``Pretrained``; usually given by :meth:`from_hparams`.

    Raises
    ------
    ValueError
        If a module or value is missing that a retriever needs.

    Example
    -------
    With a folder that a training has exported::

        retriever = EncoderRetriever.from_hparams("results/retriever")
        retriever.encode_files("recordings")
        for hit in retriever.search("an exhausted, flat voice", k=3):
            print(hit.score, hit.segment.path, hit.segment.start)
    """

    HPARAMS_NEEDED = [
        "sample_rate",
        "embedding_size",
        "max_seconds",
        "hop_seconds",
        "min_seconds",
    ]
    MODULES_NEEDED = [
        "speech_encoder",
        "speech_projection",
        "text_encoder",
        "text_projection",
    ]

    def __init__(
        self, modules=None, hparams=None, run_opts=None, freeze_params=True
    ):
        self._check_modules(modules)
        super().__init__(modules, hparams, run_opts, freeze_params)
        self._check_widths()
        self.index = SearchIndex(self.hparams.embedding_size)
        self.skipped = []

    @classmethod
    def _check_modules(cls, modules):
        """The base class names MODULES_NEEDED but never looks at it."""
        given = dict(modules.items()) if hasattr(modules, "items") else {}
        names = dict.fromkeys([*cls.MODULES_NEEDED, *given])
        bad = [
            name
            for name in names
            if not isinstance(given.get(name), torch.nn.Module)
        ]
        if bad:
            raise ValueError(
                f"a retriever needs the modules {', '.join(bad)}: give each "
                "as an object under `modules` on the page"
            )

    def _check_widths(self):
        """Says before the first clip what would not fit."""
        for tower in "speech", "text":
            width = self.mods[f"{tower}_encoder"].width
            projection = self.mods[f"{tower}_projection"]
            gives = (projection.in_features, projection.out_features)
            wanted = (width, self.hparams.embedding_size)
            if gives != wanted:
                raise ValueError(
                    f"{tower}_projection maps {gives[0]} to {gives[1]}, but "
                    f"encoder and embedding_size need {wanted[0]} to "
                    f"{wanted[1]}: correct the page, or export again"
                )

    # Opening

    @classmethod
    def from_hparams(
        cls,
        source,
        hparams_file="hyperparams.yaml",
        overrides=None,
        overrides_must_match=True,
        savedir=None,
        download_only=False,
        fetch_config=None,
        trust_source=False,
        **kwargs,
    ):
        """Returns the retriever of a folder or of a hub's repository.

        A folder is used where it lies and needs no network; ``savedir`` is
        then left alone. From the hub come only the files that a retriever is
        made of, into ``savedir`` or, without one, into the hub's cache.

        Arguments
        ---------
        source : str
            A folder, or a hub id like ``owner/name``.
        hparams_file : str
            Name of the page in it.
        overrides : dict or str, optional
            Values to lay over the page; plain ones, as in the page itself.
        overrides_must_match : bool
            Whether each must name a key that the page has.
        savedir : str, optional
            Where to put what is downloaded.
        download_only : bool
            Whether to return None once all files are there.
        fetch_config : FetchConfig, optional
            ``revision``, ``token``, ``allow_network``,
            ``huggingface_cache_dir`` and ``overwrite`` are heeded.
        trust_source : bool
            Whether the page may run code. Only for authors whose programs
            you would run.
        **kwargs : dict
            For the constructor: ``run_opts={"device": "cuda:0"}``,
            ``freeze_params``.

        Returns
        -------
        EncoderRetriever
            Ready to encode.

        Raises
        ------
        FileNotFoundError
            If the source or one of its files is not there.
        UnsafePageError
            If the page could run code.
        WeightsError
            If the weights are damaged, hold anything but plain tensors, or
            do not belong to the page.
        """
        folder = find_folder(
            source, hparams_file, savedir, fetch_config or FetchConfig()
        )
        if download_only:
            return None
        page = (folder / hparams_file).read_text(encoding="utf-8")
        overrides = with_folder(page, overrides, folder)
        if not trust_source:
            check_page(
                page, folder / hparams_file, overrides, folder=str(folder)
            )
        hparams = load_hyperpyyaml(page, overrides, overrides_must_match)
        hparams["savedir"] = savedir
        modules = hparams.get("modules")
        cls._check_modules(modules)
        fill(modules, load_weights(folder / WEIGHTS), folder / WEIGHTS)
        return cls(modules=modules, hparams=hparams, **kwargs)

    # Encoding

    @torch.no_grad()
    def encode_text(self, texts):
        """Returns one embedding a description.

        Arguments
        ---------
        texts : str or list of str
            One or many.

        Returns
        -------
        torch.Tensor
            Unit-length rows, float32 of shape [batch, embedding].

        Raises
        ------
        ValueError
            If there is no text, or one is blank.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts or not all(
            isinstance(t, str) and t.strip() for t in texts
        ):
            raise ValueError(f"describe a style in words; got {texts!r}")
        rows = []
        with self.inference_ctx:
            for i in range(0, len(texts), TEXT_BATCH):
                pooled = self.mods.text_encoder(texts[i : i + TEXT_BATCH])
                rows.append(self.mods.text_projection(pooled).float())
        return normalize(torch.cat(rows), dim=-1)

    @torch.no_grad()
    def encode_batch(self, wavs, wav_lens=None):
        """Returns one embedding a clip.

        Arguments
        ---------
        wavs : torch.Tensor or list of torch.Tensor
            Waveforms at the retriever's sample rate, of shape [batch, time]
            or [time], or a list of [time].
        wav_lens : torch.Tensor, optional
            Relative lengths of shape [batch]; all full if not given.

        Returns
        -------
        torch.Tensor
            Unit-length rows, float32 of shape [batch, embedding].

        Raises
        ------
        ValueError
            If shapes do not fit or a sample is not finite.
        """
        if isinstance(wavs, (list, tuple)):
            if wav_lens is not None:
                raise ValueError("a list of clips brings its own lengths")
            wavs, wav_lens = _pad(wavs)
        wavs = torch.as_tensor(wavs, dtype=torch.float32, device=self.device)
        if wavs.ndim == 1:
            wavs = wavs[None]
        if wavs.ndim != 2 or 0 in wavs.shape:
            raise ValueError(
                "waveforms need shape [batch, time] or [time], not "
                f"{list(wavs.shape)}; mix channels to mono first"
            )
        is_finite = wavs.isfinite().all(dim=1)
        if not is_finite.all():
            rows = (~is_finite).nonzero().flatten().tolist()
            raise ValueError(f"NaN or infinite samples in clips {rows}")
        if wav_lens is None:
            wav_lens = torch.ones(len(wavs))
        wav_lens = torch.as_tensor(
            wav_lens, dtype=torch.float32, device=self.device
        )
        is_good = wav_lens.shape == wavs.shape[:1] and bool(
            ((wav_lens > 0) & (wav_lens <= 1)).all()
        )
        if not is_good:
            raise ValueError(
                f"{len(wavs)} clips need as many relative lengths in (0, 1], "
                f"not {wav_lens.tolist()}"
            )
        with self.inference_ctx:
            pooled = self.mods.speech_encoder(wavs, wav_lens)
            rows = self.mods.speech_projection(pooled).float()
        return normalize(rows, dim=-1)

    def forward(self, wavs, wav_lens=None):
        """Same as :meth:`encode_batch`."""
        return self.encode_batch(wavs, wav_lens)

    def encode_files(
        self,
        paths,
        batch_size=16,
        progress=True,
        on_error="skip",
        n_workers=None,
    ):
        """Returns embeddings of files, and which segment each is of.

        Any format that soundfile reads, any rate, any number of channels
        (mixed to mono). A file longer than the page's ``max_seconds`` becomes
        overlapping windows, read one by one, so that memory does not grow
        with its length. What was embedded can be searched from then on.

        Arguments
        ---------
        paths : str or list of str
            Files, and folders for all audio in them.
        batch_size : int
            Clips a pass; those of like length go together.
        progress : bool
            Whether to show a bar.
        on_error : str
            ``skip`` lists what cannot be used in ``skipped``, ``raise``
            stops at it. Silent windows of a longer file are always skipped.
        n_workers : int, optional
            Threads that check the files beforehand; one a core if not given.

        Returns
        -------
        embeddings : torch.Tensor
            Unit-length rows on the CPU, of shape [segments, embedding].
        segments : list of Segment
            One a row: files as they were given, times rising.

        Raises
        ------
        AudioError
            With ``on_error="raise"``: the first file that cannot be used.
        """
        _check_on_error(on_error)
        paths = _expand(paths)
        infos, skips = check_clips(
            list(dict.fromkeys(paths)),
            self.hparams.min_seconds,
            n_workers,
            progress,
        )
        if skips and on_error == "raise":
            raise AudioError(skips[0].path, skips[0].reason, skips[0].detail)
        segments = [
            Segment(path, start, stop)
            for path in paths
            if path in infos
            for start, stop in self._windows(infos[path].seconds)
        ]
        rows, errors = self._encode(segments, batch_size, progress, on_error)
        self._list_skipped(skips + _as_skips(segments, errors), len(paths))
        kept = [i for i in range(len(segments)) if i not in errors]
        rows, segments = rows[kept], [segments[i] for i in kept]
        self.index.add(rows, segments)
        return rows, segments

    def encode_clips(
        self, rows, batch_size=16, progress=True, on_error="raise"
    ):
        """Returns one embedding a row of a manifest, and the rows it is of.

        A clip longer than ``max_seconds`` is embedded window by window; its
        embedding is the direction of their mean. Nothing is added to the
        index.

        Arguments
        ---------
        rows : list of dict
            As from ``read_manifest``.
        batch_size : int
            Clips a pass; those of like length go together.
        progress : bool
            Whether to show a bar.
        on_error : str
            ``raise`` stops at a clip that cannot be used, ``skip`` leaves
            its row out and lists it in ``skipped``.

        Returns
        -------
        embeddings : torch.Tensor
            Unit-length rows on the CPU, of shape [clips, embedding].
        rows : list of dict
            Those embedded, in the order given: all, unless some are skipped.

        Raises
        ------
        AudioError
            With ``on_error="raise"``: the first clip that cannot be used.
        """
        _check_on_error(on_error)
        segments, owners, skips = [], [], []
        for i, row in enumerate(rows):
            start, channel = row["start"], row["channel"]
            windows = self._windows(row["stop"] - start)
            for first, last in windows:
                segments.append(
                    Segment(row["wav"], start + first, start + last, channel)
                )
                owners.append(i)
            if not windows:
                error = AudioError(
                    row["wav"],
                    "too short",
                    f"{start:.3f} s to {row['stop']:.3f} s",
                )
                if on_error == "raise":
                    raise error
                skips.append(Skip(error.path, error.reason, error.detail))
        windows, errors = self._encode(segments, batch_size, progress, on_error)
        sums = torch.zeros(len(rows), self.hparams.embedding_size)
        n_windows = torch.zeros(len(rows))
        for j, i in enumerate(owners):
            if j not in errors:
                sums[i] += windows[j]
                n_windows[i] += 1
        kept = n_windows.nonzero().flatten().tolist()
        if on_error == "raise" and len(kept) < len(rows):
            raise next(
                error for j, error in errors.items() if owners[j] not in kept
            )
        self._list_skipped(skips + _as_skips(segments, errors), len(rows))
        return normalize(sums[kept], dim=-1), [rows[i] for i in kept]

    def _windows(self, seconds):
        """Returns start and stop of each window of a clip."""
        return cut_windows(
            seconds,
            self.hparams.max_seconds,
            self.hparams.hop_seconds,
            self.hparams.min_seconds,
        )

    def _encode(self, segments, batch_size, progress, on_error):
        """Returns one row a segment, and position to AudioError of the bad."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, not {batch_size}")
        rows = torch.zeros(len(segments), self.hparams.embedding_size)
        errors, batch, waiting = {}, [], []
        # Longest first: what does not fit in memory shows at once. Rounded,
        # so that the windows of one file stay together and in order.
        order = sorted(
            range(len(segments)),
            key=lambda i: -round(segments[i].stop - segments[i].start, 3),
        )
        waves = self._read([segments[i] for i in order])
        bar = tqdm(order, "embedding", unit="clip", disable=not progress)
        for n_read, (i, wave) in enumerate(zip(bar, waves, strict=True), 1):
            if isinstance(wave, AudioError):
                # A pause in a long recording is no fault.
                if on_error == "raise" and wave.reason != "silent":
                    raise wave
                errors[i] = wave
            else:
                batch.append(wave)
                waiting.append(i)
            is_full = len(batch) == batch_size or n_read == len(order)
            if batch and is_full:
                rows[waiting] = self.encode_batch(batch).cpu()
                batch, waiting = [], []
        return rows, errors

    def _read(self, segments):
        """Yields the waveform of each segment, or the AudioError it gave."""
        rate = self.hparams.sample_rate
        for (path, channel), group in groupby(
            segments, key=lambda segment: (segment.path, segment.channel)
        ):
            times = [(segment.start, segment.stop) for segment in group]
            while times:
                waves = read_windows(path, list(times), channel, rate)
                try:
                    for wave in waves:
                        times.pop(0)
                        yield self._heard(path, wave)
                except AudioError as error:
                    times.pop(0)  # and go on behind it
                    yield error

    def _heard(self, path, wave):
        """Returns a waveform with something in it, or an AudioError."""
        seconds = len(wave) / self.hparams.sample_rate
        if seconds < 0.999 * self.hparams.min_seconds:
            return AudioError(path, "too short", f"{seconds:.3f} s")
        if (wave.max() - wave.min()) / 2 < SILENCE:
            return AudioError(path, "silent", f"{seconds:.3f} s")
        return wave

    def _list_skipped(self, skips, n_all):
        """Adds to ``skipped`` and says so once."""
        self.skipped.extend(skips)
        if skips:
            logger.warning(
                "left out %d times in %d files or clips, listed in "
                "`skipped`; the first is %s (%s)",
                len(skips),
                n_all,
                skips[0].path,
                skips[0].reason,
            )

    # Searching

    @staticmethod
    def similarity(text_embeddings, speech_embeddings):
        """Returns the cosine of each description with each clip.

        Arguments
        ---------
        text_embeddings : torch.Tensor
            Unit-length rows of shape [texts, embedding], or one of them.
        speech_embeddings : torch.Tensor
            Unit-length rows of shape [clips, embedding], or one of them.

        Returns
        -------
        torch.Tensor
            Scores of shape [texts, clips].

        Example
        -------
        >>> clips = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> EncoderRetriever.similarity(torch.tensor([0.0, 1.0]), clips)
        tensor([[0., 1.]])
        """
        texts = torch.atleast_2d(text_embeddings)
        clips = torch.atleast_2d(speech_embeddings).to(texts)
        return texts @ clips.T

    def search(self, query, k=10, threshold=None):
        """Returns the best of what was embedded from files.

        Arguments
        ---------
        query : str, list of str or torch.Tensor
            A description, or several that count alike: the score is the mean
            of their cosines. Or their embeddings, of shape [embedding] or
            [texts, embedding]; those of a clip find what sounds like it.
        k : int
            At most so many.
        threshold : float, optional
            Lowest score that counts.

        Returns
        -------
        list of Hit
            Best first, each with segment, score and rank.

        Raises
        ------
        ValueError
            If nothing has been embedded yet.
        """
        if len(self.index) == 0:
            raise ValueError(
                "nothing to search yet: call encode_files(...) on some audio"
            )
        if not isinstance(query, torch.Tensor):
            query = self.encode_text(query)
        if query.ndim == 2:
            query = query.mean(dim=0)
        return self.index.search(query, k, threshold)


def _pad(waves):
    """Returns clips of shape [batch, time], and their relative lengths."""
    waves = [torch.as_tensor(wave, dtype=torch.float32) for wave in waves]
    if not waves or any(w.ndim != 1 or len(w) == 0 for w in waves):
        raise ValueError(
            "a list of clips needs waveforms of shape [time], not "
            f"{[list(wave.shape) for wave in waves]}"
        )
    lengths = torch.tensor([float(len(wave)) for wave in waves])
    return pad_sequence(waves, batch_first=True), lengths / lengths.max()


def _expand(paths):
    """Returns files as given, and in place of a folder the audio in it."""
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    expanded = []
    for path in map(os.fspath, paths):
        expanded += find_audio(path) if os.path.isdir(path) else [path]
    return expanded


def _check_on_error(on_error):
    if on_error not in ("skip", "raise"):
        raise ValueError(f"on_error is 'skip' or 'raise', not {on_error!r}")


def _as_skips(segments, errors):
    """Returns what was left out, with the times of each segment."""
    return [
        Skip(
            error.path,
            error.reason,
            f"{segments[i].start:.2f} s to {segments[i].stop:.2f} s",
        )
        for i, error in sorted(errors.items())
    ]
