"""A speech encoder small enough to be trained from scratch on a laptop.

Authors
 * The esr_lobes contributors
"""

import torch
import torch.nn.functional as F
from speechbrain.lobes.features import Fbank
from torch import nn

from esr_lobes.pooling import length_to_mask

SAMPLE_RATE = 16000
HOP_MS = 10


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
            sample_rate=SAMPLE_RATE, n_mels=n_mels, n_fft=512, win_length=25,
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
            Log-mel frames in dB of shape [batch, frames, n_mels], 0 where
            padded.
        counts : torch.Tensor
            Number of real frames of shape [batch].
        """
        n_samples = (wav_lens * wavs.shape[1]).round().long().clamp(min=1)
        real = torch.arange(wavs.shape[1], device=wavs.device)
        wavs = wavs.masked_fill(real >= n_samples.unsqueeze(1), 0.0)
        x = self.fbank(wavs)
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
        return x.masked_fill(~mask.unsqueeze(-1), 0.0), counts
