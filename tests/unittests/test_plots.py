"""Figures: what they show, at any size, and how they are written.

Authors
 * The esr_lobes contributors
"""

import subprocess
import sys

import numpy as np
import pytest

from esr_lobes.plots import (
    bin_name,
    duration_bars,
    embedding_map,
    save_figure,
    similarity_map,
    style_similarities,
)

BINS = [
    {"from": 0.0, "to": 4.0, "clips": 3, "trials": 70, "R@1": 0.25, "R@5": 1.0},
    {"from": 10.0, "to": None, "clips": 1, "trials": 1, "R@1": 0.0, "R@5": 1.0},
]


def made_up(n_styles, n_each, width=8):
    """Clips around one direction a style, their styles, and prompts."""
    rng = np.random.default_rng(0)
    names = [f"style{i:02d}" for i in range(n_styles)]
    centres = rng.standard_normal((n_styles, width))
    clips = np.repeat(centres, n_each, axis=0)
    clips += 0.1 * rng.standard_normal(clips.shape)
    prompts = {name: centres[i : i + 1] for i, name in enumerate(names)}
    return clips, np.repeat(names, n_each).tolist(), prompts


def texts(axes):
    """All words written inside some axes."""
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(
    "n_styles, n_each, method",
    [(1, 1, "principal"), (2, 3, "principal"), (22, 2, "t-SNE")],
)
def test_map_of_any_number_of_clips(tmp_path, n_styles, n_each, method):
    clips, styles, prompts = made_up(n_styles, n_each)
    figure = embedding_map(clips, styles, prompts, "Speech")
    axes = figure.axes[0]
    n_clips = n_styles * n_each
    assert axes.get_title().startswith(f"Speech\n{method}")
    assert f"{n_clips} clips and {n_styles} prompts" in axes.get_title()
    assert texts(axes) == sorted(prompts)
    # Dots and stars of each style, and the star of the legend.
    assert len(axes.collections) == 2 * n_styles + 1
    looks = {
        (tuple(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.size)
        for dots in axes.collections[:-1:2]
    }
    assert len(looks) == n_styles
    save_figure(tmp_path / "map.png", figure)
    assert (tmp_path / "map.png").stat().st_size > 5000


def test_map_shows_a_part_of_many():
    clips, styles, prompts = made_up(2, 20)
    prompts = {
        name: np.repeat(rows, 9, axis=0) for name, rows in prompts.items()
    }
    title = (
        embedding_map(clips, styles, prompts, max_clips=4, max_prompts=3)
        .axes[0]
        .get_title()
    )
    assert "4 of 40 clips and 6 of 18 prompts" in title


def test_map_of_equal_vectors_and_of_styles_without_prompts():
    clips, styles, prompts = made_up(3, 10)
    for some in (clips, np.ones_like(clips)):
        figure = embedding_map(some, styles, {"style01": prompts["style01"]})
        assert texts(figure.axes[0]) == ["style00", "style01", "style02"]


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
