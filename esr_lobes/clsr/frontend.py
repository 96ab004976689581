"""From waveforms to the stacked frames that Paraformer hears.

Authors
 * The esr_lobes contributors
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from esr_lobes.clsr.sanm import real_steps
from esr_lobes.weights import DAMAGE, WeightsError, first_line

SAMPLE_RATE = 16000
WINDOW, HOP, N_FFT = 400, 160, 512
LOWEST_HZ = 20.0
PRE_EMPHASIS = 0.97
# Kaldi's samples are those of 16 bits.
SCALE = 32768.0


def mel_banks(n_mels):
    """Returns Kaldi's triangles over the bins of a spectrum.

    Arguments
    ---------
    n_mels : int
        Number of mel bands, from 20 Hz to 8 kHz.

    Returns
    -------
    torch.Tensor
        Of shape [257, n_mels]. The last bin is in no band.

    Example
    -------
    >>> mel_banks(80).sum(dim=0).gt(0).all().item()
    True
    """

    # In float32 as Kaldi does, rounding included.
    def mel(hertz):
        return 1127.0 * (1.0 + hertz / 700.0).log()

    edges = mel(torch.tensor([LOWEST_HZ, SAMPLE_RATE / 2], dtype=torch.double))
    low, high = edges.tolist()
    step = (high - low) / (n_mels + 1)
    left, centre, right = (
        low + (torch.arange(n_mels) + i) * step for i in range(3)
    )
    bins = torch.arange(N_FFT // 2 + 1) * (SAMPLE_RATE / N_FFT)
    place = mel(bins).unsqueeze(1)
    up = (place - left) / (centre - left)
    banks = torch.minimum(up, (right - place) / (right - centre)).clamp(min=0)
    banks[-1] = 0.0
    return banks


class KaldiFbank(nn.Module):
    """Log-mel frames of 25 ms every 10 ms, as Kaldi computes them.

    Arguments
    ---------
    n_mels : int
        Number of mel bands.
    dither : float
        Noise that training adds to the samples, in units of 16 bits. FunASR
        adds 1 by default, in tests as well; here tests are repeatable.

    Example
    -------
    >>> x, counts = KaldiFbank()(torch.rand(2, 800), torch.tensor([800, 400]))
    >>> x.shape, counts.tolist()
    (torch.Size([2, 3, 80]), [3, 1])
    """

    def __init__(self, n_mels=80, dither=0.0):
        super().__init__()
        self.dither = dither
        window = torch.hamming_window(WINDOW, periodic=False)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("banks", mel_banks(n_mels), persistent=False)

    def forward(self, wavs, n_samples):
        """Returns frames and how many of them are real.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz in [-1, 1], of shape [batch, time].
        n_samples : torch.Tensor
            Number of real samples of shape [batch].

        Returns
        -------
        x : torch.Tensor
            Of shape [batch, frames, n_mels]; of no use where padded.
        counts : torch.Tensor
            Number of real frames, long of shape [batch], one at least: what
            is shorter than a frame is heard with silence behind it.
        """
        place = torch.arange(wavs.shape[1], device=wavs.device)
        is_padded = place >= n_samples.unsqueeze(1)
        wavs = wavs.float().masked_fill(is_padded, 0.0) * SCALE
        wavs = F.pad(wavs, (0, max(0, WINDOW - wavs.shape[1])))
        with torch.autocast(wavs.device.type, enabled=False):
            if self.training and self.dither:
                wavs = wavs + self.dither * torch.randn(wavs.shape).to(wavs)
            # In Kaldi's order, so that rounding is the same, and in place.
            x = wavs.unfold(1, WINDOW, HOP)
            x = x - x.mean(dim=2, keepdim=True)
            before = PRE_EMPHASIS * x
            x[..., 1:] -= before[..., :-1]
            x[..., 0] -= before[..., 0]  # the first comes after itself
            x *= self.window
            spectrum = torch.fft.rfft(x, n=N_FFT)
            power = spectrum.real.square() + spectrum.imag.square()
            x = power @ self.banks
        x = x.clamp(min=torch.finfo(torch.float32).eps).log()
        counts = (n_samples.clamp(min=WINDOW) - WINDOW) // HOP + 1
        return x, counts


def stack_frames(x, counts, width=7, step=6):
    """Returns frames stacked with their neighbours, at a lower rate.

    Stack i is made of the frames around frame ``step * i``; beyond an end of
    a row its first or last frame stands again.

    Arguments
    ---------
    x : torch.Tensor
        Frames of shape [batch, frame, band].
    counts : torch.Tensor
        Number of real frames of shape [batch], one at least.
    width : int
        Frames a stack.
    step : int
        Frames from one stack to the next.

    Returns
    -------
    stacks : torch.Tensor
        Of shape [batch, stack, width * band]; of no use where padded.
    counts : torch.Tensor
        Number of real stacks of shape [batch].

    Example
    -------
    >>> x = torch.arange(5.0).view(1, 5, 1)
    >>> stacks, counts = stack_frames(x, torch.tensor([5]), width=3, step=2)
    >>> stacks.tolist(), counts.tolist()
    ([[[0.0, 0.0, 1.0], [1.0, 2.0, 3.0], [3.0, 4.0, 4.0]]], [3])
    """
    n_stacks = -(-x.shape[1] // step)
    starts = step * torch.arange(n_stacks, device=x.device) - (width - 1) // 2
    index = starts.unsqueeze(1) + torch.arange(width, device=x.device)
    last = (counts - 1).view(-1, 1, 1)
    index = torch.minimum(index, last).clamp(min=0).flatten(1)
    index = index.unsqueeze(2).expand(-1, -1, x.shape[2])
    stacks = x.gather(1, index).view(len(x), n_stacks, -1)
    return stacks, (counts + step - 1) // step


class Frontend(nn.Module):
    """Turns waveforms into stacked, normalised log-mel frames.

    A row gives the same whatever it shares a batch with.

    Arguments
    ---------
    n_mels : int
        Number of mel bands.
    lfr_width, lfr_step : int
        Frames a stack, and from one stack to the next.
    cmvn : (torch.Tensor, torch.Tensor), optional
        What is added to a stack, and what it is then multiplied with, each
        of shape [lfr_width * n_mels]. They are buffers and saved with the
        weights. If not given, nothing is changed.
    dither : float
        See :class:`KaldiFbank`.

    Example
    -------
    >>> frontend = Frontend()
    >>> feats, lengths = frontend(torch.rand(2, 16000), torch.tensor([1, 0.5]))
    >>> feats.shape, lengths.tolist()
    (torch.Size([2, 17, 560]), [17, 8])
    """

    def __init__(
        self, n_mels=80, lfr_width=7, lfr_step=6, cmvn=None, dither=0.0
    ):
        super().__init__()
        self.fbank = KaldiFbank(n_mels, dither)
        self.lfr_width, self.lfr_step = lfr_width, lfr_step
        self.width = lfr_width * n_mels
        shift, scale = cmvn or (torch.zeros(self.width), torch.ones(self.width))
        if not shift.shape == scale.shape == (self.width,):
            raise ValueError(
                f"cmvn has {list(shift.shape)} and {list(scale.shape)} values, "
                f"but a stack has {self.width}"
            )
        self.register_buffer("shift", shift.float())
        self.register_buffer("scale", scale.float())

    def forward(self, wavs, wav_lens):
        """Returns stacked frames and how many of them are real.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz in [-1, 1], of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        feats : torch.Tensor
            Of shape [batch, step, width], 0 where padded.
        lengths : torch.Tensor
            Number of real steps, long of shape [batch], one at least.
        """
        n_samples = (wav_lens * wavs.shape[1]).round().long().clamp(min=1)
        x, counts = self.fbank(wavs, n_samples)
        x, lengths = stack_frames(x, counts, self.lfr_width, self.lfr_step)
        x = (x + self.shift) * self.scale
        is_real = real_steps(lengths, x.shape[1])
        return x.masked_fill(~is_real.unsqueeze(2), 0.0), lengths


class LfrMask(nn.Module):
    """Covers a stretch of time and one of bands with 0, the mean.

    "SpecAugment" (Park et al., 2019, https://arxiv.org/abs/1904.08779) on
    stacked frames, with draws for each clip: a band is covered in all frames
    of a stack. Does nothing in evaluation mode.

    Arguments
    ---------
    n_mels : int
        Bands of a frame.
    max_bands : int
        Widest stretch of bands.
    max_steps : int
        Longest stretch of time in steps, though no more than half of a clip.

    Example
    -------
    >>> mask = LfrMask(n_mels=3).eval()
    >>> mask(torch.ones(1, 2, 6), torch.tensor([2])).sum().item()
    12.0
    """

    def __init__(self, n_mels=80, max_bands=30, max_steps=12):
        super().__init__()
        self.n_mels = n_mels
        self.max_bands, self.max_steps = max_bands, max_steps

    def forward(self, feats, lengths):
        """Returns stacked frames with holes.

        Arguments
        ---------
        feats : torch.Tensor
            Of shape [batch, step, width]; a step has its frames one after
            another.
        lengths : torch.Tensor
            Number of real steps of shape [batch].

        Returns
        -------
        torch.Tensor
            Of the same shape.
        """
        if not self.training:
            return feats
        all_bands = torch.full_like(lengths, self.n_mels)
        bands = self._spans(all_bands, self.max_bands, self.n_mels)
        bands = bands.repeat(1, feats.shape[2] // self.n_mels)
        longest = (lengths // 2).clamp(max=self.max_steps)
        steps = self._spans(lengths, longest, feats.shape[1])
        return feats.masked_fill(steps.unsqueeze(2) | bands.unsqueeze(1), 0.0)

    @staticmethod
    def _spans(lengths, longest, size):
        """Returns one random span of each row, booleans [batch, size]."""
        draws = torch.rand(2, len(lengths), 1, dtype=torch.float64)
        draws = draws.to(lengths.device)
        longest = torch.as_tensor(longest, device=lengths.device)
        widths = (draws[0] * (longest.view(-1, 1) + 1)).long()
        starts = (draws[1] * (lengths.view(-1, 1) - widths + 1)).long()
        place = torch.arange(size, device=lengths.device)
        return (place >= starts) & (place < starts + widths)


def read_cmvn(path):
    """Returns the normalisation that an ``am.mvn`` of Kaldi states.

    Arguments
    ---------
    path : Path
        A text; below the tags ``<AddShift>`` and ``<Rescale>`` stands a line
        with ``<LearnRateCoef> 0 [``, the values and ``]``.

    Returns
    -------
    shift : torch.Tensor
        What is added, of shape [values].
    scale : torch.Tensor
        What is multiplied then, of shape [values].

    Raises
    ------
    WeightsError
        If it cannot be read.
    """
    found = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        for line, following in zip(lines, lines[1:], strict=False):
            tag = line.split(maxsplit=1)[:1]
            if tag in (["<AddShift>"], ["<Rescale>"]):
                inside = following.partition("[")[2].partition("]")[0]
                found[tag[0]] = [float(value) for value in inside.split()]
        shift, scale = found["<AddShift>"], found["<Rescale>"]
        if not shift or len(shift) != len(scale):
            raise ValueError(f"{len(shift)} values and {len(scale)}")
        if not all(map(math.isfinite, shift + scale)):
            raise ValueError("a value is not finite")
    except DAMAGE as error:
        raise WeightsError(
            f"{path} is no am.mvn that can be read ({first_line(error)[:300]})."
            " Download it again."
        ) from error
    return torch.tensor(shift), torch.tensor(scale)
