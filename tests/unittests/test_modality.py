"""Distances between speech and text, on clouds whose distance is known.

Authors
 * The esr_lobes contributors
"""

import numpy as np
import pytest

from esr_lobes.errors import MendableError
from esr_lobes.modality import modality_gap, probe_accuracy

STYLES = [f"style{i}" for i in range(6)]


def clouds(shift, n_clips=20, n_prompts=30, width=12):
    """Clips and prompts around one centre a style, moved apart by `shift`."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((len(STYLES), width))
    centres[:, 0] = 0.0  # no style lies in the direction of the move
    move = np.zeros(width)
    move[0] = shift

    def around(centre, count):
        return centre + 0.3 * rng.standard_normal((count, width))

    clips = np.concatenate([around(c, n_clips) for c in centres])
    prompts = {
        style: around(centre, n_prompts) + move
        for style, centre in zip(STYLES, centres, strict=True)
    }
    return clips, np.repeat(STYLES, n_clips).tolist(), prompts


def test_a_gap_is_the_distance_of_unit_means_whatever_the_numbers():
    # Means (1, 0) and (0, 1) are the square root of 2 apart.
    clips = [[5.0, 0.0], [1.0, 0.0]]
    prompts = {"sad": [[0.0, 2.0]], "happy": [[0.0, 1.0]]}
    assert modality_gap(clips, prompts) == pytest.approx(2**0.5)
    # A style's many prompts weigh as much as another's single one.
    many = {"sad": [[0.0, 1.0]] * 99, "happy": [[1.0, 0.0]]}
    assert modality_gap(clips, many) == pytest.approx((0.5**2 * 2) ** 0.5)


def test_the_probe_sees_what_is_apart_and_no_more():
    clips, styles, prompts = clouds(shift=5.0)
    assert probe_accuracy(clips, styles, prompts) == 1.0
    mixed = probe_accuracy(*clouds(shift=0.0))
    assert 0.35 < mixed < 0.65
    assert mixed == probe_accuracy(*clouds(shift=0.0))


def test_the_probe_is_asked_about_styles_it_has_not_seen():
    # In each style speech and text are apart in a direction of its own: a
    # probe that had seen the style would tell them all rightly.
    rng = np.random.default_rng(1)
    axes = np.eye(len(STYLES))
    clips = np.concatenate(
        [axis + 0.01 * rng.standard_normal((9, len(axis))) for axis in axes]
    )
    prompts = {
        style: -axis + 0.01 * rng.standard_normal((9, len(axis)))
        for style, axis in zip(STYLES, axes, strict=True)
    }
    styles = np.repeat(STYLES, 9).tolist()
    assert probe_accuracy(clips, styles, prompts) < 0.8


def test_numbers_do_not_depend_on_the_order_of_clips():
    clips, styles, prompts = clouds(shift=0.7)
    order = np.random.default_rng(2).permutation(len(clips))
    turned = clips[order], [styles[i] for i in order], prompts
    assert probe_accuracy(*turned) == pytest.approx(
        probe_accuracy(clips, styles, prompts), abs=1e-6
    )


def test_one_style_is_not_enough():
    with pytest.raises(MendableError, match="two styles or more, not of sad"):
        probe_accuracy([[1.0]], ["sad"], {"sad": [[1.0]], "bored": [[1.0]]})
