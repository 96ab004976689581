"""Pictures of sound.

Authors
 * The esr_lobes contributors
"""

import functools
import io

import numpy as np
import torch

N_FFT = 512
N_BANDS = 72
RANGE_DB = 65.0
COLOUR_MAP = "magma"


def spectrogram(wav, sample_rate, width=900, height=96):
    """Returns a mel spectrogram as a picture.

    Arguments
    ---------
    wav : array or torch.Tensor
        Waveform of shape [time].
    sample_rate : int
        Its rate in Hz.
    width : int
        Of the picture, in pixels.
    height : int
        Of the picture, in pixels.

    Returns
    -------
    bytes
        A PNG file.

    Example
    -------
    >>> spectrogram(np.zeros(8000), 16000)[1:4]
    b'PNG'
    """
    from PIL import Image

    wav = torch.as_tensor(wav, dtype=torch.float32)
    hop = max(64, round(len(wav) / width))
    levels = _levels(wav, sample_rate, hop)
    picture = Image.fromarray(levels[::-1])
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    # Palette after resizing: what is between two levels is a level.
    picture.putpalette(_palette())
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _levels(wav, sample_rate, hop):
    """Returns loudness from 0 to 255, of shape [band, column]."""
    power = torch.stft(
        wav,
        N_FFT,
        hop,
        window=torch.hann_window(N_FFT),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = _bands(sample_rate).T @ power.abs().square()
    loudness = 10 * torch.log10(power.clamp_min(1e-10))
    loudest = max(float(loudness.max()), -40.0)
    share = (loudness - loudest) / RANGE_DB + 1
    return (share.clamp(0, 1) * 255).byte().numpy()


@functools.cache
def _bands(sample_rate):
    """Returns mel filters of shape [frequency, band]."""
    from torchaudio.functional import melscale_fbanks

    highest = min(8000.0, sample_rate / 2)
    return melscale_fbanks(
        N_FFT // 2 + 1, 60.0, highest, N_BANDS, sample_rate, norm="slaney"
    )


@functools.cache
def _palette():
    """Returns red, green and blue of 256 levels in a row."""
    from matplotlib import colormaps

    colours = colormaps[COLOUR_MAP](np.linspace(0.06, 0.97, 256))[:, :3]
    return (colours * 255).round().astype(np.uint8).tobytes()
