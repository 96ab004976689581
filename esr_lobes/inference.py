"""The trained retriever, for who only wants to search.

A retriever is a folder: one flat ``hyperparams.yaml``, the weights in
``weights.safetensors``, pretrained backbones in folders beside. It is opened
as data, see :mod:`esr_lobes.safety`.

Authors
 * The esr_lobes contributors
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.fetching import FetchConfig
from torch.nn.functional import normalize

from esr_lobes.batches import as_batch
from esr_lobes.embedding import FileEmbedder
from esr_lobes.index import MemoryIndex
from esr_lobes.opening import (
    WEIGHTS,
    build,
    check_numbers,
    find_folder,
    plain_values,
    read_page,
    with_folder,
)
from esr_lobes.reranking import TEXT_BATCH, WordRanker
from esr_lobes.safety import check_page
from esr_lobes.weights import fill, fingerprint, load_weights

# Numbers that change an embedding; how files are cut does not.
IDENTIFYING = ("sample_rate", "embedding_size")


class EncoderRetriever(FileEmbedder, WordRanker, Pretrained):
    """Finds clips by words: by how they sound, or by what they speak of.

    Embeddings are unit-length rows: their inner product is the score.
    ``index`` holds what was embedded from files, ``skipped`` lists what
    could not be; ``source`` is the folder or hub id it was opened from.

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
        check_numbers(hparams or {})
        super().__init__(modules, hparams, run_opts, freeze_params)
        self._check_widths()
        self.source = None
        self.index = MemoryIndex(self.hparams.embedding_size)
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
        PageError
            If page or overrides are no page of a retriever.
        WeightsError
            If the weights, or the text backbone, are damaged, hold anything
            but plain tensors, or do not belong to the page.
        """
        folder = find_folder(
            source, hparams_file, savedir, fetch_config or FetchConfig()
        )
        if download_only:
            return None
        name = folder / hparams_file
        page = read_page(name)
        overrides = with_folder(page, overrides, folder)
        if not trust_source:
            check_page(page, name, overrides, folder=str(folder))
        hparams = build(page, overrides, name, overrides_must_match)
        if not trust_source:
            needed = [*cls.HPARAMS_NEEDED, "modules"]
            hparams = plain_values(hparams, needed)
        check_numbers(hparams, name)
        hparams["savedir"] = savedir
        modules = hparams.get("modules")
        cls._check_modules(modules)
        fill(modules, load_weights(folder / WEIGHTS), folder / WEIGHTS)
        retriever = cls(modules=modules, hparams=hparams, **kwargs)
        is_folder = Path(source).expanduser().is_dir()
        retriever.source = str(folder) if is_folder else os.fspath(source)
        return retriever

    # Encoding

    def fingerprint(self):
        """Returns what tells this model from others: weights and numbers.

        Returns
        -------
        str
            Thirty-two hexadecimal digits, equal for equal weights.
        """
        numbers = {key: self.hparams.__dict__[key] for key in IDENTIFYING}
        return fingerprint(self.mods, numbers)

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
            If there is no text, or one is blank or no Unicode.
        """
        texts = _as_texts(texts)
        rows = []
        with self.inference_ctx:
            for i in range(0, len(texts), TEXT_BATCH):
                pooled = self.mods.text_encoder(texts[i : i + TEXT_BATCH])
                rows.append(self.mods.text_projection(pooled).float())
        return normalize(torch.cat(rows), dim=-1)

    @torch.no_grad()
    def encode_batch(self, wavs, wav_lens=None):
        """Returns one embedding a clip.

        Any clip has one, silence and a single sample, too, but that says
        nothing of a voice; :meth:`encode_files` leaves such clips out.

        Arguments
        ---------
        wavs : torch.Tensor or list of torch.Tensor
            Waveforms at the retriever's sample rate, floating point within
            [-1, 1], of shape [batch, time] or [time], or a list of [time].
        wav_lens : torch.Tensor, optional
            Relative lengths of shape [batch]; all full if not given.

        Returns
        -------
        torch.Tensor
            Unit-length rows, float32 of shape [batch, embedding].

        Raises
        ------
        TypeError
            If samples are integers: their scale is not known.
        ValueError
            If shapes do not fit or a sample is not finite.
        """
        wavs, wav_lens = as_batch(wavs, wav_lens, self.device)
        with self.inference_ctx:
            pooled = self.mods.speech_encoder(wavs, wav_lens)
            rows = self.mods.speech_projection(pooled).float()
        return normalize(rows, dim=-1)

    def forward(self, wavs, wav_lens=None):
        """Same as :meth:`encode_batch`."""
        return self.encode_batch(wavs, wav_lens)

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
        query : str, list of str, torch.Tensor or array
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
            If nothing has been embedded yet, or query, k or threshold are
            none.
        """
        if len(self.index) == 0:
            raise ValueError(
                "nothing to search yet: call encode_files(...) on some audio"
            )
        if isinstance(query, np.ndarray) and query.dtype.kind == "f":
            query = torch.as_tensor(query)
        if not isinstance(query, torch.Tensor):
            query = self.encode_text(query)
        if query.ndim == 2:
            query = query.mean(dim=0)
        return self.index.search(query, k, threshold)

    # An index on disk

    def build_index(self, audio, out, space="style", **options):
        """Makes or brings up to date an index on disk, as ``esr index`` does.

        Arguments
        ---------
        audio : str or list of str
            Files, and folders for all audio in them.
        out : str
            Folder of the index.
        space : str
            What this retriever hears: ``style`` or ``content``.
        **options : dict
            See :func:`esr_lobes.indexing.build.build_index`.

        Returns
        -------
        SearchIndex
            Open, with this retriever to ask it in words.
        """
        from esr_lobes.indexing.build import build_index

        build_index(audio, out, {space: self}, **options)
        return self.open_index(out, space)

    def open_index(self, folder, space="style"):
        """Returns an index on disk that this retriever has built.

        Arguments
        ---------
        folder : str
            Of the index.
        space : str
            Which of its vectors this retriever made.

        Returns
        -------
        SearchIndex
            Ready to be asked in words.

        Raises
        ------
        ModelMismatchError
            If it was built with another model.
        """
        from esr_lobes.index.search import SearchIndex

        return SearchIndex.open(folder, {space: self})


def _as_texts(texts):
    """Returns a list of texts with something in each."""
    if isinstance(texts, str):
        texts = [texts]
    is_many = isinstance(texts, Iterable) and not isinstance(texts, Mapping)
    texts = list(texts) if is_many else texts
    is_good = is_many and all(isinstance(t, str) and t.strip() for t in texts)
    if not texts or not is_good:
        raise ValueError(f"say in words what is searched for; got {texts!r}")
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{text!r} is no valid Unicode") from error
    return texts
