"""From a manifest to batches of waveforms.

Authors
 * The esr_lobes contributors
"""

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes

from esr_lobes import audio


class ClipReader:
    """Reads segments, and keeps those that fit into a share of memory.

    Decoding and resampling a small corpus anew in every epoch can cost as
    much as training on it.

    Arguments
    ---------
    sample_rate : int
        Hertz of what is returned.
    cache_gib : float
        Gibibytes of decoded audio to keep; 0 keeps none. Each loader
        process keeps its own.
    """

    def __init__(self, sample_rate=audio.SAMPLE_RATE, cache_gib=0.0):
        self.sample_rate = sample_rate
        self.free_bytes = int(cache_gib * 2**30)
        self._kept = {}

    def __call__(self, path, start=0.0, stop=None, channel=None):
        """Returns one segment, mono, float32 of shape [time].

        Arguments
        ---------
        path : str
            The file.
        start, stop : float
            Seconds; no stop reads to the end.
        channel : int
            Which one; None mixes all.

        Returns
        -------
        torch.Tensor
            The samples.
        """
        key = (path, start, stop, channel)
        if key in self._kept:
            return self._kept[key]
        wave = audio.read(path, start, stop, channel, self.sample_rate)
        n_bytes = wave.element_size() * wave.numel()
        if n_bytes <= self.free_bytes:
            self.free_bytes -= n_bytes
            self._kept[key] = wave
        return wave


def random_crop(wave, max_samples):
    """Returns at most so many samples, from a random place.

    Arguments
    ---------
    wave : torch.Tensor
        Samples of shape [time].
    max_samples : int
        How many to keep at most.

    Returns
    -------
    torch.Tensor
        Samples of shape [min(time, max_samples)].

    Example
    -------
    >>> random_crop(torch.arange(3), 8).tolist()
    [0, 1, 2]
    >>> len(random_crop(torch.arange(9), 8))
    8
    """
    spare = len(wave) - max_samples
    if spare <= 0:
        return wave
    start = torch.randint(spare + 1, ()).item()
    return wave[start : start + max_samples]


def make_dataset(rows, styles, reader, crop_seconds=None):
    """Returns a SpeechBrain dataset of manifest rows.

    Arguments
    ---------
    rows : list of dict
        As :func:`esr_lobes.manifests.read_manifest` returns them.
    styles : list of str
        All styles, in the order of the classifier's outputs.
    reader : ClipReader
        Reads the segments.
    crop_seconds : float
        Longest clip, cut at random beyond it; None keeps all of it.

    Returns
    -------
    DynamicItemDataset
        With items ``id``, ``sig`` ([time], float32), ``style`` (a name) and
        ``style_index``.
    """
    dataset = DynamicItemDataset({row["ID"]: dict(row) for row in rows})
    index = {style: i for i, style in enumerate(styles)}

    @takes("wav", "start", "stop", "channel")
    @provides("sig")
    def read(wav, start, stop, channel):
        wave = reader(wav, start, stop, channel)
        if crop_seconds is None:
            return wave
        return random_crop(wave, round(crop_seconds * reader.sample_rate))

    @takes("style")
    @provides("style_index")
    def number(style):
        return index[style]

    dataset.add_dynamic_item(read)
    dataset.add_dynamic_item(number)
    dataset.set_output_keys(["id", "sig", "style", "style_index"])
    return dataset
