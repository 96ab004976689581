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
