"""A speech encoder small enough to be trained from scratch on a laptop.

Authors
 * The esr_lobes contributors
"""

import torch
import torch.nn.functional as F
from speechbrain.lobes.features import Fbank
from torch import nn

from esr_lobes.augment import BandColour, SpecMask
from esr_lobes.pooling import length_to_mask

SAMPLE_RATE = 16000
HOP_MS = 10
# Where the levels of speech lie, so that they come out near unit variance.
CENTRE_DB, SPREAD_DB = -40.0, 20.0
# Convolutions are faster when few different lengths come by.
FRAME_MULTIPLE = 32


class LogMel(nn.Module):
    """Turns waveforms into log-mel frames and cuts the silence around them.

    Each clip is treated by itself: whatever stands beside it in a batch,
    its frames are the same.

    Arguments
    ---------
    n_mels : int
        Number of mel bands.
    trim_db : float
        Frames at the beginning and the end that are that many dB below the
        loudest frame of their clip are cut off. 0 keeps everything.

    Example
    -------
    >>> x, counts = LogMel(n_mels=4)(torch.rand(2, 1600), torch.ones(2))
    >>> x.shape[0], x.shape[2], counts.tolist()
    (2, 4, [11, 11])
    """

    def __init__(self, n_mels=80, trim_db=40.0):
        super().__init__()
        self.fbank = Fbank(
            sample_rate=SAMPLE_RATE,
            n_mels=n_mels,
            n_fft=512,
            win_length=25,
            hop_length=HOP_MS,
        )
        self.fbank.compute_fbanks.top_db = 200.0
        self.trim_db = trim_db
        self.hop = SAMPLE_RATE * HOP_MS // 1000

    def forward(self, wavs, wav_lens):
        """Returns frames and how many of them are real.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        x : torch.Tensor
            Log-mel levels of shape [batch, frames, n_mels], near unit
            variance for speech, 0 where padded.
        counts : torch.Tensor
            Number of real frames of shape [batch].
        """
        n_samples = (wav_lens * wavs.shape[1]).round().long().clamp(min=1)
        real = torch.arange(wavs.shape[1], device=wavs.device)
        wavs = wavs.masked_fill(real >= n_samples.unsqueeze(1), 0.0)
        with torch.autocast(wavs.device.type, enabled=False):
            x = self.fbank(wavs.float())
        counts = (n_samples // self.hop + 1).clamp(max=x.shape[1])
        positions = torch.arange(x.shape[1], device=x.device)
        mask = positions < counts.unsqueeze(1)
        if self.trim_db:
            energy = x.amax(dim=-1).masked_fill(~mask, -torch.inf)
            floor = energy.amax(dim=1, keepdim=True) - self.trim_db
            is_loud = energy >= floor
            first = is_loud.int().argmax(dim=1)
            last = x.shape[1] - 1 - is_loud.flip(1).int().argmax(dim=1)
            counts = last - first + 1
            positions = positions[: int(counts.max())]
            index = (first.unsqueeze(1) + positions).clamp(max=x.shape[1] - 1)
            x = x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))
            mask = positions < counts.unsqueeze(1)
        x = (x - CENTRE_DB) / SPREAD_DB
        return x.masked_fill(~mask.unsqueeze(-1), 0.0), counts


def _real(counts, n_frames):
    """Returns 1 where a frame is real, float, [batch, 1, 1, frame]."""
    positions = torch.arange(n_frames, device=counts.device)
    return (positions < counts.unsqueeze(1))[:, None, None].float()


class _SqueezeExcite(nn.Module):
    """Weighs channels by what the whole clip says, padding left out.

    "Squeeze-and-Excitation Networks" (Hu et al., 2018,
    https://arxiv.org/abs/1709.01507).
    """

    def __init__(self, channels, reduction=4):
        super().__init__()
        hidden = max(8, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x, real):
        """Returns x of shape [batch, channel, band, frame], weighed."""
        mean = (x * real).sum(dim=(2, 3)) / (real.sum(dim=(2, 3)) * x.shape[2])
        weights = self.excite(self.squeeze(mean).relu()).sigmoid()
        return x * weights[:, :, None, None]


class _Block(nn.Module):
    """Two convolutions over bands and frames beside a shortcut."""

    def __init__(self, in_channels, channels, stride):
        super().__init__()
        self.stride = stride
        self.first = nn.Conv2d(
            in_channels, channels, 3, stride=stride, padding=1, bias=False
        )
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        self.weigh = _SqueezeExcite(channels)
        self.shortcut = nn.Identity()
        if in_channels != channels or stride != (1, 1):
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, x, counts):
        """Returns x, 0 where padded, and the number of real frames."""
        y = self.first_norm(self.first(x)).relu()
        counts = _after_stride(counts, self.stride[1])
        real = _real(counts, y.shape[-1]).to(y.dtype)
        y = self.second_norm(self.second(y * real))
        y = self.weigh(y, real) + self.shortcut(x)
        return y.relu() * real, counts


def _after_stride(counts, stride):
    """Returns how many frames a padded convolution of odd width leaves."""
    return torch.div(counts + stride - 1, stride, rounding_mode="floor")


class _AttentivePooling(nn.Module):
    """Returns weighted mean and deviation over the real frames.

    "Attentive Statistics Pooling for Deep Speaker Embedding" (Okabe et al.,
    2018, https://arxiv.org/abs/1803.10963).
    """

    def __init__(self, channels, hidden=128):
        super().__init__()
        self.attend = nn.Sequential(
            nn.Linear(channels, hidden), nn.Tanh(), nn.Linear(hidden, channels)
        )

    def forward(self, x, lengths):
        """Returns [batch, 2 * channel] for x [batch, frame, channel]."""
        mask = length_to_mask(lengths, x.shape[1]).unsqueeze(-1)
        logits = self.attend(x).float().masked_fill(~mask, -torch.inf)
        weights = logits.softmax(dim=1)
        x = x.float()
        mean = (weights * x).sum(dim=1)
        spread = (weights * (x - mean.unsqueeze(1)) ** 2).sum(dim=1)
        return torch.cat([mean, spread.clamp(min=1e-5).sqrt()], dim=-1)


class CompactEncoder(nn.Module):
    """Turns clips into one vector each: log-mel, residual blocks, pooling.

    Silence around a clip is cut off, levels are kept (a loud voice is not
    a soft one). In training mode a random stretch of long clips is taken,
    its bands are moved and coloured, and holes are cut into it; in
    evaluation mode whole clips are read, each as if it were alone.

    Arguments
    ---------
    n_mels : int
        Number of mel bands.
    channels : list of int
        Width of each residual block. The bands are halved before the first
        and at each later one.
    frame_strides : list of int
        Step over frames of each residual block.
    dropout : float
        Share of the pooled vector that training blanks.
    trim_db : float
        See :class:`LogMel`.
    crop_frames : int
        Longest stretch of 10 ms frames seen in training. 0 sees all.
    max_band_shift : int
        Most bands that training moves the spectrum up or down.
    band_gain_db : float
        How much training colours the spectrum, a standard deviation; see
        :class:`esr_lobes.augment.BandColour`.
    n_time_masks, max_time_share, n_band_masks, max_band_share
        See :class:`esr_lobes.augment.SpecMask`.

    Example
    -------
    >>> encoder = CompactEncoder(channels=[8, 8], frame_strides=[1, 2]).eval()
    >>> encoder(torch.rand(2, 1600), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 32])
    >>> encoder.width
    32
    """

    def __init__(
        self,
        n_mels=80,
        channels=(24, 48, 96, 256),
        frame_strides=(1, 2, 2, 1),
        dropout=0.3,
        trim_db=40.0,
        crop_frames=192,
        max_band_shift=3,
        band_gain_db=2.0,
        n_time_masks=2,
        max_time_share=0.15,
        n_band_masks=2,
        max_band_share=0.125,
    ):
        super().__init__()
        if len(channels) != len(frame_strides):
            raise ValueError(
                f"{len(channels)} channels but {len(frame_strides)} "
                "frame_strides: give one of each a block"
            )
        self.features = LogMel(n_mels, trim_db)
        self.crop_frames = crop_frames
        self.colour = BandColour(max_band_shift, band_gain_db / SPREAD_DB)
        self.mask = SpecMask(
            n_time_masks, max_time_share, n_band_masks, max_band_share
        )
        self.stem = nn.Conv2d(
            1, channels[0], 5, stride=2, padding=2, bias=False
        )
        self.stem_norm = nn.BatchNorm2d(channels[0])
        widths = [channels[0], *channels]
        self.blocks = nn.ModuleList(
            _Block(widths[i], channels[i], (1 if i == 0 else 2, stride))
            for i, stride in enumerate(frame_strides)
        )
        self.pool = _AttentivePooling(2 * channels[-1])
        self.width = 4 * channels[-1]
        self.norm = nn.BatchNorm1d(self.width)
        self.dropout = nn.Dropout(dropout)

    def _crop(self, x, counts):
        """Returns a random stretch of each clip longer than the limit."""
        if not self.training or not self.crop_frames:
            return x, counts
        room = (counts - self.crop_frames).clamp(min=0)
        starts = (torch.rand(len(x)).to(x.device) * (room + 1)).floor().long()
        counts = counts.clamp(max=self.crop_frames)
        positions = torch.arange(int(counts.max()), device=x.device)
        index = (starts.unsqueeze(1) + positions).clamp(max=x.shape[1] - 1)
        x = x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))
        is_real = positions < counts.unsqueeze(1)
        return x.masked_fill(~is_real.unsqueeze(-1), 0.0), counts

    def frames(self, wavs, wav_lens):
        """Returns a vector for every few frames.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        x : torch.Tensor
            Of shape [batch, frames, channel], 0 where padded.
        lengths : torch.Tensor
            Relative lengths of shape [batch].
        """
        x, counts = self.features(wavs, wav_lens)
        x, counts = self._crop(x, counts)
        x = self.mask(self.colour(x, counts), counts)
        x = F.pad(x, (0, 0, 0, -x.shape[1] % FRAME_MULTIPLE))
        x = x.transpose(1, 2).unsqueeze(1)
        x = self.stem_norm(self.stem(x)).relu()
        counts = _after_stride(counts, 2)
        x = x * _real(counts, x.shape[-1]).to(x.dtype)
        for block in self.blocks:
            x, counts = block(x, counts)
        x = torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1).transpose(1, 2)
        return x, counts / x.shape[1]

    def forward(self, wavs, wav_lens):
        """Returns one vector a clip.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        torch.Tensor
            Of shape [batch, width].
        """
        pooled = self.pool(*self.frames(wavs, wav_lens))
        return self.dropout(self.norm(pooled))
