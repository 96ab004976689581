"""WavLM, wav2vec 2.0 and HuBERT, blind to padding.

Authors
 * The esr_lobes contributors
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
from transformers import AutoModel
from transformers.utils import CONFIG_NAME, cached_file

from esr_lobes.audio import SAMPLE_RATE
from esr_lobes.encoders.checkpoints import load_whole, naming_damage
from esr_lobes.encoders.huggingface_layers import convolve, make_faster
from esr_lobes.limits import reach
from esr_lobes.pooling import length_to_mask, masked_mean
from esr_lobes.weights import WeightsError

FAMILIES = ("hubert", "wav2vec2", "wavlm")
# What transformers adds to a variance when it normalises waveforms.
WAVE_EPS = 1e-7


class HuggingFaceSpeech(Wav2Vec2):
    """Turns clips into frames, and into one vector each, by their mean.

    Any checkpoint of WavLM (https://arxiv.org/abs/2110.13900), wav2vec 2.0
    (https://arxiv.org/abs/2006.11477) or HuBERT
    (https://arxiv.org/abs/2106.07447), opened by SpeechBrain's integration
    of Hugging Face. Of that class opening and forward pass are replaced:

    - a clip alone gives what it gives in any batch, but for rounding (float32:
      cosine distances below 1e-6, frames equal to about 1e-5). With
      SpeechBrain's mask alone it does not: models that begin with a group
      norm over time (``feat_extract_norm="group"``: WavLM Base+, wav2vec 2.0
      Base, HuBERT Base) would take its statistics over the padding too, and
      those whose waveforms are normalised (``do_normalize``: the Large ones)
      would normalise the batch's rows, padding included. Here both count
      real samples only;
    - how many frames are real is the checkpoint's own formula;
    - a checkpoint from which weights are missing is refused;
    - a hub id is found in the hub's cache, also without network.

    A clip shorter than the reach of a frame (25 ms) is heard with silence
    behind it. SpecAugment on features (``mask_time_prob`` and its kind in a
    checkpoint's config) is not applied, so that an encoder depends on its
    input and its dropout alone; augment waveforms instead. Layers are dropped
    in training as the checkpoint's config says; processes that train together
    drop different ones, so give them ``layerdrop=0.0``, or let DDP find
    unused parameters. What is computed faster than by transformers, to the
    same result, stands in :mod:`esr_lobes.encoders.huggingface_layers`: the
    convolutions, WavLM's attention, and dropout on the CPU.

    No code that comes with a checkpoint is run, and a ``.bin`` of weights is
    unpickled as plain tensors only.

    Arguments
    ---------
    source : str
        A folder, or a hub id like ``microsoft/wavlm-base-plus``.
    is_frozen : bool
        Whether the backbone keeps its weights, and stays in evaluation mode
        whatever its owner does.
    gradient_checkpointing : bool
        Whether training keeps little of the forward pass and computes it
        again: less memory, more work.
    local_files_only : bool
        Whether asking a hub is forbidden.
    layerdrop : float, optional
        Share of layers that training leaves out; None as the checkpoint says.

    Raises
    ------
    FileNotFoundError
        If the source is no folder, and a hub does not give it.
    WeightsError
        If it is damaged or not complete, of another family, or not for
        16 kHz.

    Example
    -------
    ::

        encoder = HuggingFaceSpeech("microsoft/wavlm-base-plus")
        vectors = encoder(wavs, wav_lens)  # [batch, 768]
    """

    def __init__(
        self,
        source,
        is_frozen=False,
        gradient_checkpointing=False,
        local_files_only=False,
        layerdrop=None,
    ):
        source = str(source)
        with naming_damage("speech", source):
            if local_files_only and not Path(source).is_dir():
                # SpeechBrain would ask the hub for the config all the same.
                path = cached_file(source, CONFIG_NAME, local_files_only=True)
                source = str(Path(path).parent)
            # Without a save_path the hub's own cache is used.
            super().__init__(source, save_path=None, freeze=is_frozen)
        config = self.model.config
        if self.feature_extractor.sampling_rate != SAMPLE_RATE:
            raise WeightsError(
                f"{source} hears {self.feature_extractor.sampling_rate} Hz, "
                f"not {SAMPLE_RATE}"
            )
        self.width = config.hidden_size
        self.is_frozen = is_frozen
        self.gradient_checkpointing = gradient_checkpointing
        make_faster(self.model)
        if layerdrop is not None:
            config.layerdrop = layerdrop
        if gradient_checkpointing and not is_frozen:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        if hasattr(self.model, "masked_spec_embed"):
            # Part of SpecAugment: DDP would wait for its gradient.
            self.model.masked_spec_embed.requires_grad_(False)

    def _from_pretrained(self, source, save_path, cache_dir, **kwargs):
        """Loads the model, whole or not at all.

        SpeechBrain asks the hub what a repository holds, even when all lies
        in the cache, unpickles what is called ``.ckpt``, and passes over
        missing weights.
        """
        kind = self.config.model_type
        if kind not in FAMILIES or getattr(self.config, "add_adapter", False):
            raise WeightsError(
                f"{source} is a model of type {kind!r}; this encoder is for "
                f"{', '.join(FAMILIES)}, without adapter layers"
            )
        reach(self.config.conv_kernel, self.config.conv_stride)  # or raises
        self.model = load_whole(
            AutoModel,
            "speech",
            source,
            unused=("masked_spec_embed",),
            config=self.config,
        )

    def train(self, mode=True):
        """Sets the mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.model.eval()
        return self

    @property
    def shortest(self):
        """Number of samples that the first frame hears."""
        config = self.model.config
        return reach(config.conv_kernel, config.conv_stride)

    def _prepare(self, wavs, wav_lens):
        """Returns waveforms, 0 where padded, and their sample counts."""
        counts = (wav_lens * wavs.shape[1]).round().long().clamp(min=1)
        positions = torch.arange(wavs.shape[1], device=wavs.device)
        is_padded = positions >= counts.unsqueeze(1)
        wavs = wavs.float().masked_fill(is_padded, 0.0)
        if self.normalize_wav:
            count = counts.unsqueeze(1)
            wavs = wavs - wavs.sum(dim=1, keepdim=True) / count
            wavs = wavs.masked_fill(is_padded, 0.0)
            variance = wavs.square().sum(dim=1, keepdim=True) / count
            wavs = wavs * (variance + WAVE_EPS).rsqrt()
        lack = self.shortest - wavs.shape[1]
        return F.pad(wavs, (0, max(0, lack))), counts.clamp(min=self.shortest)

    def extract_features(self, wav, wav_lens=None):
        """Same as :meth:`frames`, without the lengths, as in SpeechBrain."""
        if wav_lens is None:
            wav_lens = wav.new_ones(len(wav))
        return self.frames(wav, wav_lens)[0]

    def frames(self, wavs, wav_lens):
        """Returns a vector for every 20 ms.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        x : torch.Tensor
            Float32 of shape [batch, frame, width], 0 where padded.
        lengths : torch.Tensor
            Relative lengths of shape [batch].
        """
        is_learning = torch.is_grad_enabled() and not self.is_frozen
        with torch.set_grad_enabled(is_learning):
            wavs, counts = self._prepare(wavs, wav_lens)
            x = convolve(
                self.model.feature_extractor.conv_layers,
                wavs,
                counts,
                self.gradient_checkpointing,
            )
            counts = self.model._get_feat_extract_output_lengths(counts)
            lengths = counts / x.shape[1]
            mask = length_to_mask(lengths, x.shape[1])
            x = self.model.feature_projection(x)
            x = x[0] if isinstance(x, tuple) else x  # HuBERT gives it alone
            x = self.model.encoder(x, attention_mask=mask).last_hidden_state
        return x.float().masked_fill(~mask.unsqueeze(-1), 0.0), lengths

    def forward(self, wavs, wav_lens=None):
        """Returns one vector a clip, the mean of its real frames.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz of shape [batch, time].
        wav_lens : torch.Tensor, optional
            Relative lengths of shape [batch]; all full if not given.

        Returns
        -------
        torch.Tensor
            Float32 of shape [batch, width].
        """
        if wav_lens is None:
            wav_lens = wavs.new_ones(len(wavs))
        return masked_mean(*self.frames(wavs, wav_lens))

    def save(self, folder):
        """Writes the backbone and how its input is made, to be a ``source``.

        Arguments
        ---------
        folder : str
            Where to; made if it is not there.
        """
        self.model.save_pretrained(folder)
        self.feature_extractor.save_pretrained(folder)
