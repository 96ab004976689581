"""Maps of speech and text, at any size and in several spaces.

Authors
 * The esr_lobes contributors
"""

import numpy as np
import pytest

from esr_lobes.maps import embedding_map, embedding_maps
from esr_lobes.plots import save_figure


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


def test_maps_show_the_same_clips_in_each_space():
    clips, styles, prompts = made_up(2, 20)
    apart = {name: -rows for name, rows in prompts.items()}
    figure = embedding_maps(
        {"one": (clips, prompts), "two": (clips, apart)}, styles, max_clips=14
    )
    one, two = figure.axes
    assert one.get_title().startswith("one\nt-SNE of 14 of 40 clips")
    assert two.get_title().startswith("two\nt-SNE of 14 of 40 clips")
    for axes in figure.axes:
        assert sum(len(dots.get_offsets()) for dots in axes.collections) == 16
    counts = [
        [len(dots.get_offsets()) for dots in axes.collections]
        for axes in figure.axes
    ]
    assert counts[0] == counts[1]
    assert one.get_legend() is None and two.get_legend() is not None
    again = embedding_maps({"one": (clips, prompts)}, styles, max_clips=14)
    assert np.array_equal(
        again.axes[0].collections[0].get_offsets(),
        one.collections[0].get_offsets(),
    )
