"""Tests of the sampler: how many are shown, which, and to whom.

Authors
 * The esr_lobes contributors
"""

import pytest
import torch

from esr_lobes.clsr.sampler import count_errors, draw_positions, glance


@pytest.mark.parametrize("ratio", [0.0, 0.29, 0.5, 0.7, 0.75, 1.0])
def test_exactly_a_share_of_the_errors_is_replaced(ratio):
    torch.manual_seed(0)
    lengths = torch.randint(1, 101, (64,))
    errors = (torch.rand(64) * (lengths + 1)).long()
    errors[0], lengths[0] = 100, 100  # 0.29 times 100 is a little below 29
    acoustic, truth = torch.ones(64, 100, 2), torch.full((64, 100, 2), 2.0)
    mixed = glance(acoustic, truth, errors, lengths, ratio)
    for row, n, e in zip(mixed, lengths.tolist(), errors.tolist(), strict=True):
        assert row[n:].abs().sum() == 0
        assert (row[:n, 0] == 2).sum() == int(ratio * e)
        assert torch.equal(row[:, 0], row[:, 1])


def test_errors_are_counted_within_the_row():
    said = torch.tensor([[1, 2, 3, 9], [4, 5, 6, 7]])
    right = torch.tensor([[1, 5, 4, 0], [4, 0, 0, 0]])
    assert count_errors(said, right, torch.tensor([3, 1])).tolist() == [2, 0]


def test_every_position_is_drawn_alike_right_or_wrong():
    torch.manual_seed(0)
    lengths = torch.full((6000,), 5)
    drawn = draw_positions(torch.full((6000,), 2), lengths, 8)
    assert drawn.sum(dim=1).eq(2).all()
    shares = drawn.float().mean(dim=0)
    assert (shares[:5] - 0.4).abs().max() < 0.03
    assert shares[5:].sum() == 0
    pairs = drawn[:, :5].float().t() @ drawn[:, :5].float() / 6000
    apart = pairs[~torch.eye(5, dtype=torch.bool)]
    assert (apart - 0.1).abs().max() < 0.02  # each of ten pairs


def test_the_same_seed_draws_the_same():
    numbers = torch.tensor([3, 5, 0]), torch.tensor([6, 9, 2])
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(draw_positions(*numbers, 9))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_gradients_go_to_what_was_taken():
    torch.manual_seed(0)
    acoustic = torch.ones(1, 6, 1, requires_grad=True)
    truth = torch.ones(1, 6, 1, requires_grad=True)
    glance(
        acoustic, truth, torch.tensor([2]), torch.tensor([5]), 1.0
    ).sum().backward()
    to_acoustic, to_truth = acoustic.grad.flatten(), truth.grad.flatten()
    assert (to_acoustic + to_truth).tolist() == [1, 1, 1, 1, 1, 0]
    assert to_truth.sum() == 2
