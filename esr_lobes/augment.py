"""Changes to clips and to their frames that keep the style, for training.

Each clip of a batch gets draws of its own, all from torch's generator, so
that a seed fixes them and a resumed run goes on with the same ones.

Authors
 * The esr_lobes contributors
"""

import torch
import torchaudio
from torch import nn

SAMPLE_RATE = 16000


class Chain(nn.Module):
    """Does one change of the waveforms after another.

    Arguments
    ---------
    *steps : nn.Module
        Each takes and returns waveforms and their relative lengths.

    Example
    -------
    >>> chain = Chain(RandomSpeed([2.0]), RandomGain(0.0))
    >>> chain(torch.zeros(1, 1000), torch.ones(1))[0].shape
    torch.Size([1, 500])
    """

    def __init__(self, *steps):
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, wavs, wav_lens):
        """Returns the changed clips.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        wavs : torch.Tensor
            Waveforms of shape [batch, new_time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].
        """
        for step in self.steps:
            wavs, wav_lens = step(wavs, wav_lens)
        return wavs, wav_lens


class RandomSpeed(nn.Module):
    """Plays each clip slower or faster, pitch and all.

    The longest clip of the result fills its row. In evaluation mode nothing
    changes.

    Arguments
    ---------
    speeds : list of float
        Speeds to choose from; 1.1 is faster and higher. They are taken to
        the nearest hundredth.

    Example
    -------
    >>> wavs, wav_lens = torch.zeros(2, 1000), torch.tensor([1.0, 0.5])
    >>> wavs, wav_lens = RandomSpeed([2.0])(wavs, wav_lens)
    >>> wavs.shape, wav_lens.tolist()
    (torch.Size([2, 500]), [1.0, 0.5])
    """

    def __init__(self, speeds=(0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15)):
        super().__init__()
        self.percents = [round(100 * speed) for speed in speeds]
        if not self.percents or min(self.percents) <= 0:
            raise ValueError(f"speeds must be above 0, not {list(speeds)}")

    def forward(self, wavs, wav_lens):
        """Returns the clips at their new speeds.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        wavs : torch.Tensor
            Waveforms of shape [batch, new_time], 0 where padded.
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].
        """
        if not self.training:
            return wavs, wav_lens
        counts = (wav_lens * wavs.shape[1]).round().long().clamp(min=1)
        draws = torch.randint(len(self.percents), (len(wavs),)).tolist()
        clips = []
        for wav, count, draw in zip(wavs, counts.tolist(), draws, strict=True):
            clip = wav[:count]
            if self.percents[draw] != 100:
                clip = torchaudio.functional.resample(
                    clip, self.percents[draw], 100
                )
            clips.append(clip)
        lengths = torch.tensor([len(clip) for clip in clips])
        wavs = nn.utils.rnn.pad_sequence(clips, batch_first=True)
        return wavs, (lengths / wavs.shape[1]).to(wav_lens)


class RandomGain(nn.Module):
    """Makes each clip louder or softer. Does nothing in evaluation mode.

    Arguments
    ---------
    spread_db : float
        Standard deviation of the gain.

    Example
    -------
    >>> RandomGain(0.0)(torch.ones(1, 2), torch.ones(1))[0].tolist()
    [[1.0, 1.0]]
    """

    def __init__(self, spread_db=3.0):
        super().__init__()
        self.spread_db = spread_db

    def forward(self, wavs, wav_lens):
        """Returns the clips with their new level.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        wavs : torch.Tensor
            Waveforms of the same shape.
        wav_lens : torch.Tensor
            The same lengths.
        """
        if not self.training:
            return wavs, wav_lens
        gains_db = self.spread_db * torch.randn(len(wavs), 1)
        return wavs * 10 ** (gains_db.to(wavs) / 20), wav_lens


class BandColour(nn.Module):
    """Moves the bands of each clip up or down and makes some of them louder.

    As if another throat and another microphone had been there. Does nothing
    in evaluation mode.

    Arguments
    ---------
    max_shift : int
        Most bands to move by; the outermost band fills the gap.
    spread : float
        Standard deviation of what is added at each of a few points, evenly
        spaced over the bands; straight lines join them.
    n_points : int
        Number of points.

    Example
    -------
    >>> colour = BandColour().eval()
    >>> colour(torch.ones(1, 2, 3), torch.tensor([2])).sum().item()
    6.0
    """

    def __init__(self, max_shift=3, spread=0.1, n_points=4):
        super().__init__()
        self.max_shift = max_shift
        self.spread = spread
        self.n_points = n_points

    def forward(self, x, counts):
        """Returns frames of another colour.

        Arguments
        ---------
        x : torch.Tensor
            Log frames of shape [batch, frames, band], 0 where padded.
        counts : torch.Tensor
            Number of real frames of shape [batch].

        Returns
        -------
        torch.Tensor
            Frames of the same shape, 0 where padded.
        """
        if not self.training:
            return x
        n_rows, n_frames, n_bands = x.shape
        points = self.spread * torch.randn(n_rows, 1, self.n_points)
        curve = nn.functional.interpolate(
            points, n_bands, mode="linear", align_corners=True
        )
        most = self.max_shift
        shifts = torch.randint(-most, most + 1, (n_rows, 1))
        bands = (torch.arange(n_bands) - shifts).clamp(0, n_bands - 1)
        bands = bands.to(x.device).unsqueeze(1).expand(-1, n_frames, -1)
        frames = torch.arange(n_frames, device=x.device)
        is_real = frames < counts.to(x.device).unsqueeze(1)
        x = (x + curve.to(x)).gather(2, bands)
        return x.masked_fill(~is_real.unsqueeze(2), 0.0)


def _random_spans(counts, shares):
    """Returns where a span of a share of each row begins and ends."""
    widths = (torch.rand(len(counts)) * shares * counts).floor()
    starts = (torch.rand(len(counts)) * (counts - widths + 1)).floor()
    return starts, starts + widths


class SpecMask(nn.Module):
    """Covers random stretches of time and bands with the clip's mean.

    "SpecAugment" (Park et al., 2019, https://arxiv.org/abs/1904.08779),
    with draws for each clip. Does nothing in evaluation mode.

    Arguments
    ---------
    n_time_masks : int
        Number of stretches of time.
    max_time_share : float
        Longest stretch as a share of the clip.
    n_band_masks : int
        Number of stretches of bands.
    max_band_share : float
        Widest stretch as a share of the bands.

    Example
    -------
    >>> mask = SpecMask().eval()
    >>> mask(torch.ones(1, 2, 3), torch.tensor([2])).sum().item()
    6.0
    """

    def __init__(
        self,
        n_time_masks=2,
        max_time_share=0.15,
        n_band_masks=2,
        max_band_share=0.125,
    ):
        super().__init__()
        self.n_time_masks = n_time_masks
        self.max_time_share = max_time_share
        self.n_band_masks = n_band_masks
        self.max_band_share = max_band_share

    def forward(self, x, counts):
        """Returns frames with holes.

        Arguments
        ---------
        x : torch.Tensor
            Frames of shape [batch, frames, band], 0 where padded.
        counts : torch.Tensor
            Number of real frames of shape [batch].

        Returns
        -------
        torch.Tensor
            Frames of the same shape.
        """
        if not self.training:
            return x
        counts = counts.cpu()
        bands = torch.full_like(counts, x.shape[2])
        hidden = torch.zeros(x.shape, dtype=torch.bool)
        frame, band = torch.arange(x.shape[1]), torch.arange(x.shape[2])
        for _ in range(self.n_time_masks):
            start, stop = _random_spans(counts, self.max_time_share)
            hidden |= _between(frame, start, stop).unsqueeze(2)
        for _ in range(self.n_band_masks):
            start, stop = _random_spans(bands, self.max_band_share)
            hidden |= _between(band, start, stop).unsqueeze(1)
        is_real = frame < counts.unsqueeze(1)
        hidden = (hidden & is_real.unsqueeze(2)).to(x.device)
        mean = x.sum(dim=(1, 2)) / (counts * x.shape[2]).to(x)
        return torch.where(hidden, mean.view(-1, 1, 1), x)


def _between(positions, start, stop):
    """Returns which positions lie in each row's span, [batch, position]."""
    after = positions >= start.unsqueeze(1)
    return after & (positions < stop.unsqueeze(1))


class PromptMix(nn.Module):
    """Blends some prompts of one style into one, and blurs the blend.

    A bank is a handful of points; what users will type lies between and
    beside them. Applied to what the frozen text encoder gives, so that it
    costs next to nothing.

    Arguments
    ---------
    n_prompts : int
        Blended at most; how many is drawn for each clip.
    noise : float
        Length of the blur relative to that of the blend.
    dropout : float
        Share of channels that is blanked.

    Example
    -------
    >>> PromptMix(n_prompts=2)(torch.ones(3, 2, 8)).shape
    torch.Size([3, 8])
    >>> PromptMix(n_prompts=2, noise=0, dropout=0)(torch.ones(1, 2, 1)).item()
    1.0
    """

    def __init__(self, n_prompts=4, noise=0.5, dropout=0.2):
        super().__init__()
        self.n_prompts = n_prompts
        self.noise = noise
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        """Returns one vector a clip.

        Arguments
        ---------
        x : torch.Tensor
            Outputs of the text encoder, of shape [batch, prompts, channel].

        Returns
        -------
        torch.Tensor
            Of shape [batch, channel].
        """
        n_clips, n_prompts, width = x.shape
        counts = torch.randint(1, n_prompts + 1, (n_clips, 1))
        weights = torch.rand(n_clips, n_prompts) + 1e-3
        weights = weights * (torch.arange(n_prompts) < counts)
        weights = weights / weights.sum(dim=1, keepdim=True)
        x = (weights.to(x).unsqueeze(-1) * x).sum(dim=1)
        blur = torch.randn(x.shape).to(x) / width**0.5
        x = x + self.noise * x.norm(dim=-1, keepdim=True) * blur
        return self.dropout(x)
