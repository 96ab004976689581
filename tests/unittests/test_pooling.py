"""Pooling never sees the padding.

Authors
 * The esr_lobes contributors
"""

import torch

from esr_lobes.pooling import length_to_mask, masked_mean


def test_every_integer_length_comes_back():
    for n_positions in (1, 7, 149, 1999):
        counts = torch.arange(1, n_positions + 1)
        mask = length_to_mask(counts / n_positions, n_positions)
        assert mask.sum(dim=1).tolist() == counts.tolist()


def test_a_row_of_length_zero_keeps_one_position():
    assert length_to_mask(torch.tensor([0.0]), 5).sum() == 1


def test_padding_may_hold_anything():
    torch.manual_seed(0)
    x = torch.randn(2, 10, 3)
    lengths = torch.tensor([1.0, 0.4])
    clean = masked_mean(x, lengths)
    x[1, 4:] = float("nan")
    assert torch.equal(masked_mean(x, lengths), clean)
    assert torch.allclose(clean[1], x[1, :4].mean(dim=0))
