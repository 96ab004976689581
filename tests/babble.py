"""A voice without words, made on the spot, that voice activity is found in.

Authors
 * The esr_lobes contributors
"""

import numpy as np
from scipy.signal import lfilter

RATE = 16000
# Formants of a, i, u, e, o in Hz, and how wide they are.
VOWELS = [
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
]
WIDTHS = (80, 100, 150)


def babble(seconds, seed=0):
    """Returns vowel after vowel at 16 kHz, float32 of shape [time]."""
    random = np.random.default_rng(seed)
    n_samples = round(seconds * RATE)
    vowels, n_done = [], 0
    while n_done < n_samples:
        n = int(RATE * random.uniform(0.12, 0.22))
        hertz = 120 * np.linspace(*random.uniform(0.8, 1.3, 2), n)
        pulses = np.diff(np.floor(np.cumsum(hertz) / RATE), prepend=0)
        wave = lfilter([1], [1, -0.95], pulses)
        vowel = VOWELS[random.integers(5)]
        for formant, width in zip(vowel, WIDTHS, strict=True):
            r = np.exp(-np.pi * width / RATE)
            angle = 2 * np.pi * formant / RATE
            wave = lfilter([1 - r], [1, -2 * r * np.cos(angle), r * r], wave)
        swell = np.sqrt(np.sin(np.pi * np.arange(n) / n))
        vowels.append(0.3 * swell * wave / np.abs(wave).max())
        n_done += n
    return np.concatenate(vowels)[:n_samples].astype(np.float32)


def talk(parts, seed=0):
    """Returns babble (seconds above 0) and pauses (below), one by one."""
    waves = [
        babble(part, seed + i)
        if part > 0
        else np.zeros(round(-part * RATE), np.float32)
        for i, part in enumerate(parts)
    ]
    return np.concatenate(waves)
