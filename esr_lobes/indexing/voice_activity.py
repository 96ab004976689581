"""Where somebody speaks: the probabilities of silero-vad, many tracks at a
time, and the spans that follow from them.

The model hears one frame after the other and remembers; a step costs nearly
the same for many tracks as for one. So tracks go through side by side, and
long ones are laid in strips, each with a run-up to fill the memory.

Authors
 * The esr_lobes contributors
"""

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from esr_lobes.audio import SAMPLE_RATE

FRAME = 512
"""Samples a probability stands for; all the model knows at 16 kHz."""
RUN_UP = 64 * FRAME
"""Samples heard before a strip, two seconds."""
STRIP = 5 * RUN_UP
BATCH_ROWS = 32

MIN_VOICE_MS = 100
MIN_SILENCE_MS = 300
PAD_MS = 100


def _silero():
    """Returns the package; importing it sets torch to one thread for all."""
    n_threads = torch.get_num_threads()
    import silero_vad

    torch.set_num_threads(n_threads)
    return silero_vad


class VoiceActivity:
    """Gives how probably each frame holds a voice.

    May be called from several threads: the model keeps its memory inside,
    so each call takes an idle one, or loads another (0.1 s).

    Example
    -------
    >>> VoiceActivity()([(torch.zeros(1024), 0)])[0].max() < 0.1
    tensor(True)
    """

    def __init__(self):
        self._idle = []
        self._idle.append(self._model())

    def _model(self):
        """Returns a model that no other thread uses."""
        try:
            return self._idle.pop()
        except IndexError:
            return _silero().load_silero_vad()

    @torch.inference_mode()
    def __call__(self, tracks):
        """Returns the probabilities of each track.

        Arguments
        ---------
        tracks : list of (torch.Tensor, int)
            A waveform at 16 kHz of shape [time], and how many of its first
            samples, a multiple of `FRAME`, are only a run-up.

        Returns
        -------
        list of torch.Tensor
            One a track, of shape [frames]; the run-up is left out, a last
            frame that is not full counts.
        """
        strips = [
            (i, wave[max(0, start - RUN_UP) : start + STRIP], start)
            for i, (wave, run_up) in enumerate(tracks)
            for start in range(run_up, len(wave), STRIP)
        ]
        # those of like length go together; ties keep their order
        order = sorted(range(len(strips)), key=lambda j: len(strips[j][1]))
        found = [None] * len(strips)
        model = self._model()
        for first in range(0, len(order), BATCH_ROWS):
            rows = order[first : first + BATCH_ROWS]
            batch = pad_sequence([strips[j][1] for j in rows], True)
            # the model refuses less than a frame
            batch = pad(batch, (0, max(0, FRAME - batch.shape[1])))
            probabilities = model.audio_forward(batch, SAMPLE_RATE)
            for j, row in zip(rows, probabilities, strict=True):
                _, strip, start = strips[j]
                n_before = min(start, RUN_UP) // FRAME
                found[j] = row[n_before : -(-len(strip) // FRAME)]
        self._idle.append(model)
        rows = [[] for _ in tracks]
        for (i, _, _), row in zip(strips, found, strict=True):
            rows[i].append(row)
        return [torch.cat(row) if row else torch.zeros(0) for row in rows]


def speech_spans(probabilities, n_samples, max_seconds, threshold):
    """Returns where the spans of speech begin and end.

    A pause of `MIN_SILENCE_MS` parts two spans; a longer span than
    ``max_seconds`` is parted at its longest pause. Around each are
    `PAD_MS`, for what is soft at the ends of words.

    Arguments
    ---------
    probabilities : torch.Tensor
        Of shape [frames].
    n_samples : int
        Length of the waveform.
    max_seconds : float
        No span is longer.
    threshold : float
        Lowest probability that counts as voice.

    Returns
    -------
    list of (int, int)
        First sample, and the one behind the last, rising, without overlap.

    Example
    -------
    >>> row = torch.zeros(40)
    >>> row[10:20] = 1.0
    >>> speech_spans(row, 40 * FRAME, 8.0, 0.5)  # 10 * 512 - 1600, ...
    [(3520, 11840)]
    """
    found = _silero().utils_vad.get_speech_timestamps_from_probs(
        probabilities.tolist(),
        SAMPLE_RATE,
        threshold=threshold,
        min_speech_duration_ms=MIN_VOICE_MS,
        max_speech_duration_s=max_seconds,
        min_silence_duration_ms=MIN_SILENCE_MS,
        speech_pad_ms=PAD_MS,
        audio_length_samples=n_samples,
    )
    return [(span["start"], span["end"]) for span in found]
