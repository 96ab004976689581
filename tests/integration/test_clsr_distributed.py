"""Two processes learn about content what one would.

Authors
 * The esr_lobes contributors
"""

import socket

import content_step
import torch
from safetensors.torch import load_file


def test_two_processes_have_the_gradients_of_one(tmp_path, tiny_backbone):
    """With three and two clips, of unlike numbers of words; one of the
    contexts is heard by both, and one clip nobody asks about."""
    text = tiny_backbone("bert")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    content_step.main(tmp_path / "one", text)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(
        content_step.join_and_step, (2, port, tmp_path / "two", text), nprocs=2
    )
    learning = {
        "clsr_compact": {
            "recognition.paraformer",
            "text.text_encoder",
            "joint.paraformer",
            "post.text_encoder",
        },
        "parabge_compact": {
            "text.text_encoder",
            "joint.speech_encoder",
            "joint.speech_projection",
            "joint.text_projection",
            "post.text_encoder",
        },
    }
    for page, learns in learning.items():
        one, two = (
            load_file(tmp_path / name / f"{page}.safetensors")
            for name in ("one", "two")
        )
        assert one.keys() == two.keys()
        assert {".".join(key.split(".")[:2]) for key in one} == learns
        for key, expected in one.items():
            error = (two[key] - expected).abs().max()
            assert error < 1e-4 * max(1.0, expected.abs().max()), key
        for part in learns:  # there is something to compare
            assert any(
                value.abs().max() > 1e-3
                for key, value in one.items()
                if key.startswith(part)
            ), part
