"""What CLAP hears of a clip: windows of ten seconds, as log-mel spectra.

Authors
 * The esr_lobes contributors
"""

import torch
from torch import nn
from torchaudio.functional import resample

from esr_lobes.audio import SAMPLE_RATE

# How far the last round of a repeated clip may go, see :func:`cut_windows`.
PADDINGS = ("repeatpad", "repeat", "pad")
MOST_SECONDS = 60.0  # of a window; the released models have 10
MOST_BINS = 16384  # of a Fourier transform, and bands of it
MEL_FLOOR = 1e-10


def cut_windows(wavs, counts, size, padding="repeatpad"):
    """Returns clips as windows of one size.

    A longer clip becomes several, one behind the other; the rest, or a
    shorter clip, is filled up to a window.

    Arguments
    ---------
    wavs : torch.Tensor
        Waveforms of shape [batch, time].
    counts : torch.Tensor
        Samples of each clip, long, of shape [batch], at least 1.
    size : int
        Samples of a window.
    padding : str
        ``repeatpad``: as often as it fits in whole, then zeros; ``repeat``:
        over and over; ``pad``: once, then zeros.

    Returns
    -------
    windows : torch.Tensor
        Of shape [window, size].
    owners : torch.Tensor
        The clip of each window, long, of shape [window].
    lengths : torch.Tensor
        Samples of it that each window has, long, of shape [window].

    Example
    -------
    >>> wavs = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]])
    >>> windows, owners, lengths = cut_windows(wavs, torch.tensor([7]), 5)
    >>> windows.int().tolist(), lengths.tolist()
    ([[1, 2, 3, 4, 5], [6, 7, 6, 7, 0]], [5, 2])
    """
    per_clip = -(-counts // size)
    owners = torch.arange(len(wavs), device=wavs.device)
    owners = owners.repeat_interleave(per_clip)
    first = (per_clip.cumsum(0) - per_clip).repeat_interleave(per_clip)
    starts = (torch.arange(len(owners), device=wavs.device) - first) * size
    lengths = (counts[owners] - starts).clamp(max=size)
    places = torch.arange(size, device=wavs.device)
    ends = {
        "repeatpad": lengths * (size // lengths),
        "repeat": torch.full_like(lengths, size),
        "pad": lengths,
    }[padding]
    inside = starts.unsqueeze(1) + places % lengths.unsqueeze(1)
    windows = wavs[owners.unsqueeze(1), inside]
    is_empty = places >= ends.unsqueeze(1)
    return windows.masked_fill(is_empty, 0.0), owners, lengths


class ClapFeatures(nn.Module):
    """Makes CLAP's input of clips at 16 kHz, side by side.

    As ``ClapFeatureExtractor`` of transformers does it for a clip of at most
    one window; of a longer one that takes a piece at random, and this all of
    it. Each clip is heard as if it were alone.

    Arguments
    ---------
    extractor : transformers.ClapFeatureExtractor
        With the numbers of a checkpoint.

    Raises
    ------
    ValueError
        If a number is none that a model of this kind has.

    Attributes
    ----------
    size : int
        Samples of a window, at the checkpoint's own rate.
    """

    def __init__(self, extractor):
        super().__init__()
        self.rate = int(extractor.sampling_rate)
        self.size = int(extractor.nb_max_samples)
        self.hop = int(extractor.hop_length)
        self.padding = extractor.padding
        is_fused = extractor.truncation == "fusion"
        filters = (
            extractor.mel_filters if is_fused else extractor.mel_filters_slaney
        )
        window = torch.hann_window(extractor.fft_window_size).double()
        self.register_buffer("window", window, persistent=False)
        filters = torch.as_tensor(filters, dtype=torch.float64)
        self.register_buffer("filters", filters, persistent=False)

    @torch.no_grad()
    def forward(self, wavs, wav_lens):
        """Returns the input of the model, a window a row.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        features : torch.Tensor
            Decibels, float32 of shape [window, 1, frame, mel].
        owners : torch.Tensor
            The clip of each window, long, of shape [window].
        shares : torch.Tensor
            How much of its clip each window has, of shape [window].
        """
        counts = (wav_lens * wavs.shape[1]).round().long().clamp(min=1)
        places = torch.arange(wavs.shape[1], device=wavs.device)
        wavs = wavs.float().masked_fill(places >= counts.unsqueeze(1), 0.0)
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = resample(wavs, SAMPLE_RATE, self.rate)
            counts = -(-counts * self.rate // SAMPLE_RATE)
            windows, owners, lengths = cut_windows(
                wavs, counts, self.size, self.padding
            )
            features = self.log_mel(windows)
        return features.unsqueeze(1), owners, lengths / counts[owners]

    def log_mel(self, windows):
        """Returns spectra in decibels, float32 of shape [window, frame, mel].

        In double precision: what a low rate leaves empty at the top would
        else be the noise of rounding.

        Arguments
        ---------
        windows : torch.Tensor
            Of shape [window, size].
        """
        spectra = torch.stft(
            windows.double(),
            len(self.window),
            self.hop,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectra.abs().square().transpose(1, 2) @ self.filters
        return (10 * power.clamp(min=MEL_FLOOR).log10()).float()


def open_extractor(source, local_files_only=False):
    """Returns a checkpoint's extractor, whose numbers are looked at first.

    Arguments
    ---------
    source : str
        A folder or a hub id.
    local_files_only : bool
        Whether asking a hub is forbidden.

    Returns
    -------
    transformers.ClapFeatureExtractor
        For :class:`ClapFeatures`.

    Raises
    ------
    ValueError
        If one of them would fail later, or fill the memory.
    """
    from transformers import ClapFeatureExtractor

    numbers, _ = ClapFeatureExtractor.get_feature_extractor_dict(
        source, local_files_only=local_files_only
    )
    _check(vars(ClapFeatureExtractor()) | numbers)
    return ClapFeatureExtractor.from_dict(numbers)


def _check(numbers):
    """Refuses what would fail later, or fill the memory with filters."""
    rate = numbers["sampling_rate"]
    size = int(numbers["max_length_s"] * rate)
    bounds = {
        "sampling_rate": (SAMPLE_RATE // 2, 12 * SAMPLE_RATE),
        "max_length_s": (1, MOST_SECONDS),
        "fft_window_size": (2, min(size - 1, MOST_BINS)),
        "hop_length": (1, size),
        "feature_size": (1, MOST_BINS),
        "frequency_min": (0, rate / 2),
        "frequency_max": (1, rate / 2),
    }
    for name, (least, most) in bounds.items():
        if not least <= numbers[name] <= most:
            raise ValueError(
                f"{name} is {numbers[name]}, not {least:g} to {most:g}"
            )
    if numbers["padding"] not in PADDINGS:
        raise ValueError(
            f"padding is {numbers['padding']!r}, not one of {PADDINGS}"
        )
