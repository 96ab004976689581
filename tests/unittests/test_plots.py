"""Figures: what they show, at any size, and how they are written.

Authors
 * The esr_lobes contributors
"""

import subprocess
import sys

import numpy as np

from esr_lobes.plots import (
    bin_name,
    duration_bars,
    duration_comparison,
    save_figure,
    similarity_map,
    style_similarities,
)

BINS = [
    {"from": 0.0, "to": 4.0, "clips": 3, "trials": 70, "R@1": 0.25, "R@5": 1.0},
    {"from": 10.0, "to": None, "clips": 1, "trials": 1, "R@1": 0.0, "R@5": 1.0},
]


def texts(axes):
    """All words written inside some axes."""
    return [text.get_text() for text in axes.texts]


def test_similarities_are_means_over_the_clips_of_a_style(tmp_path):
    scores = {"sad": [0.5, 0.0, 1.0], "bored": [-0.25, 0.5, -0.25]}
    styles = ["sad", "bored", "sad"]
    assert style_similarities(scores, styles) == {
        "bored": {"bored": 0.5, "sad": -0.25},
        "sad": {"bored": 0.0, "sad": 0.75},
    }
    figure = similarity_map(scores, styles, "Words")
    axes = figure.axes[0]
    assert axes.images[0].get_array().tolist() == [[0.5, -0.25], [0.0, 0.75]]
    assert texts(axes) == [".50", "-.25", ".00", ".75"]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["bored (1)", "sad (2)"]
    assert axes.get_title() == "Words\nmean score, 3 clips"
    large = {style: 40 * np.array(row) for style, row in scores.items()}
    assert texts(similarity_map(large, styles).axes[0]) == [
        "20", "-10", "0", "30"
    ]  # fmt: skip


def test_bars_have_their_height_and_say_how_many():
    axes = duration_bars(BINS, "Recall").axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights == [[0.25, 0.0], [1.0, 1.0]]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["< 4 s\n3 clips\n70 trials", ">= 10 s\n1 clip\n1 trial"]
    assert axes.get_title() == "Recall\n71 trials, all styles together"
    assert bin_name({"from": 4.0, "to": 6.5}) == "4-6.5 s"


def test_runs_have_bars_of_their_own_beside_each_other():
    other = [BINS[0] | {"R@1": 0.5, "R@5": 0.75}]  # no trial above 10 s
    figure = duration_comparison({"with": BINS, "without": other}, "Both")
    first, second = figure.axes
    assert (first.get_ylabel(), second.get_ylabel()) == ("R@1", "R@5")
    assert first.get_title() == "Both\nall styles together"
    heights = [
        [[bar.get_height() for bar in bars] for bars in axes.containers]
        for axes in figure.axes
    ]
    assert heights == [[[0.25, 0.0], [0.5]], [[1.0, 1.0], [0.75]]]
    # Side by side in the first bin: neither hides the other.
    left, right = (bars[0] for bars in first.containers)
    assert left.get_x() + left.get_width() <= right.get_x()
    labels = [label.get_text() for label in second.get_xticklabels()]
    assert labels == ["< 4 s\n3 clips", ">= 10 s\n1 clip"]
    names = [text.get_text() for text in first.get_legend().get_texts()]
    assert names == ["with", "without"]


def test_a_figure_is_written_whole(tmp_path):
    path = tmp_path / "plots" / "bars.png"
    save_figure(path, duration_bars(BINS), dpi=50)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(path.parent.iterdir()) == [path]


def test_drawing_is_lazy_and_leaves_no_global_state():
    script = f"""
import sys
import esr_lobes.evaluation, esr_lobes.plots
heavy = {{"matplotlib", "sklearn", "torch"}} & set(sys.modules)
assert not heavy, heavy
esr_lobes.plots.duration_bars({BINS!r})
assert "matplotlib.figure" in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
