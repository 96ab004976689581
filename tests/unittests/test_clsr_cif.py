"""Tests of the CIF predictor: against plain loops, and against padding.

Authors
 * The esr_lobes contributors
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from cif import WAYS, make_rows

from esr_lobes.clsr.cif import CifPredictor, cif_overlap


def predictor(width=6, bias=0.0):
    torch.manual_seed(0)
    model = CifPredictor(width)
    with torch.no_grad():
        model.cif_output.weight.mul_(3.0)
        model.cif_output.bias.fill_(bias)
    return model


@pytest.mark.parametrize("way", WAYS)
def test_overlap_has_the_values_and_gradients_of_the_other_ways(way):
    """In float64 they differ by rounding alone."""
    h, alphas, n_tokens = make_rows(3, 60, 5)
    results = []
    for function in (cif_overlap, WAYS[way]):
        inputs = h.double().requires_grad_(), alphas.double().requires_grad_()
        tokens = function(*inputs, n_tokens)
        is_whole = (
            torch.arange(n_tokens) < alphas.double().sum(1).floor()[:, None]
        )
        tokens = tokens.masked_fill(~is_whole.unsqueeze(2), 0.0)
        tokens.square().sum().backward()
        results.append([tokens.detach(), *(x.grad for x in inputs)])
    for own, other in zip(*results, strict=True):
        assert other.abs().sum() > 1
        torch.testing.assert_close(own, other, atol=1e-9, rtol=1e-9)


def test_overlap_has_a_numerical_gradient():
    h = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    alphas = torch.tensor([[0.3, 0.9, 0.4, 1.7, 0.2, 0.6, 0.3]] * 2).double()
    alphas[1, 4:] = 0.05
    alphas.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, a: cif_overlap(x, a, 5), (h, alphas)
    )


def test_gradient_by_hand_also_where_a_step_ends_with_a_token():
    """Its end lies in the token that begins there, and in no other."""
    h = torch.tensor([[[1.0], [2.0], [4.0], [8.0]]], requires_grad=True)
    alphas = torch.full((1, 4), 0.5, requires_grad=True)
    tokens = cif_overlap(h, alphas, 2).flatten()
    assert tokens.tolist() == [1.5, 6.0]
    (10 * tokens[0] + tokens[1]).backward()
    assert h.grad.flatten().tolist() == [5.0, 5.0, 0.5, 0.5]
    # Of the ends: 10 (1 - 2), 2 - 4, 4 - 8, and 0 behind the last token.
    assert alphas.grad.tolist() == [[-10.0 - 2 - 4, -2.0 - 4, -4.0, 0.0]]


def test_overlap_by_hand():
    h = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [4.0, 1.0], [8.0, 2.0]]])
    alphas = torch.tensor([[0.5, 0.75, 0.5, 0.75]])
    tokens = cif_overlap(h, alphas, 3)[0]
    assert tokens[0].tolist() == [0.5 * 1 + 0.5 * 2, 0.0]
    assert tokens[1].tolist() == [0.25 * 2 + 0.5 * 4 + 0.25 * 8, 0.5 + 0.5]
    assert tokens[2].tolist() == [0.5 * 8, 0.5 * 2]  # half a token


def test_a_step_may_weigh_more_than_a_token():
    """FunASR fires once a step, and loses what a step has beyond that."""
    h = torch.tensor([[[1.0], [10.0]]])
    tokens = cif_overlap(h, torch.tensor([[2.5, 1.5]]), 4).flatten()
    assert tokens.tolist() == [1.0, 1.0, 0.5 + 5.0, 10.0]


def test_weights_of_every_token_sum_to_one():
    _, alphas, n_tokens = make_rows(4, 300, 1)
    shares = cif_overlap(torch.ones(4, 300, 1), alphas, n_tokens + 2)[..., 0]
    for row, total in zip(shares, alphas.double().sum(1).tolist(), strict=True):
        whole = int(total)
        assert (row[:whole] - 1).abs().max() < 1e-6
        assert row[whole].item() == pytest.approx(total - whole, abs=1e-6)
        assert row[whole + 1 :].abs().sum() == 0


def test_no_token_of_a_training_batch_is_empty():
    """FunASR loses the last one of each fourth utterance to rounding."""
    generator = torch.Generator().manual_seed(0)
    model = predictor()
    n_rows = 0
    for _ in range(30):
        lengths = torch.randint(20, 500, (32,), generator=generator)
        targets = (lengths * 0.35).long()
        memory = torch.randn(32, 500, 6, generator=generator)
        acoustic, counts, _, _ = model(memory, lengths, targets)
        assert counts.tolist() == targets.tolist()
        is_empty = acoustic.abs().sum(dim=2) == 0
        for row, n in zip(is_empty, targets.tolist(), strict=True):
            assert not row[:n].any() and row[n:].all()
            n_rows += 1
    assert n_rows == 960


def test_each_token_has_a_whole_weight_after_scaling():
    """Also the last one, whose end is the sum of all that was rounded."""
    model = predictor()
    lengths, targets = torch.tensor([400, 37]), torch.tensor([133, 11])
    memory = torch.randn(2, 400, 6)
    _, alphas = model.weigh(memory, lengths)
    scaled = alphas.double()
    scaled = scaled * (targets / scaled.sum(1)).unsqueeze(1)
    shares = cif_overlap(torch.ones(2, 400, 1), scaled, 133)[..., 0]
    assert (shares[0] - 1).abs().max() < 1e-6
    assert (shares[1, :11] - 1).abs().max() < 1e-6


@pytest.mark.parametrize("n_hat, count", [(2.54, 2), (2.56, 3), (0.54, 0)])
def test_a_number_is_cut_after_the_tail_is_added(n_hat, count):
    model = predictor()
    with torch.no_grad():
        model.cif_output.weight.zero_()
        model.cif_output.bias.fill_(torch.tensor(n_hat / 8).logit())
    acoustic, counts, alphas, total = model(
        torch.rand(1, 9, 6), torch.tensor([8])
    )
    assert total.item() == pytest.approx(n_hat, abs=1e-5)
    assert counts.tolist() == [count] and counts.dtype == torch.long
    assert acoustic.shape == (1, max(1, count), 6)
    if not count:
        assert acoustic.abs().sum() == 0


def test_rows_without_a_token_stand_beside_others():
    """FunASR's second version fails if the last row of a batch has none."""
    model = predictor(bias=-4.0)
    memory, lengths = torch.randn(3, 50, 6), torch.tensor([50, 40, 1])
    with torch.no_grad():
        model.cif_output.weight.mul_(2.0)
    acoustic, counts, _, _ = model(memory, lengths)
    assert counts[-1] == 0 and counts[0] > 0
    assert acoustic[-1].abs().sum() == 0
    assert acoustic[0, : counts[0]].abs().sum(dim=1).min() > 0


def test_no_weight_at_all_is_no_nan():
    model = predictor(bias=-1000.0)
    memory = torch.randn(2, 5, 6, requires_grad=True)
    acoustic, _, _, n_hat = model(
        memory, torch.tensor([5, 3]), torch.tensor([4, 2])
    )
    (acoustic.sum() + n_hat.sum()).backward()
    assert n_hat.tolist() == [0.0, 0.0] and acoustic.abs().sum() == 0
    assert memory.grad.isfinite().all()


def test_padding_does_not_leak_into_the_last_weight():
    model = predictor()
    lengths = [30, 17, 1]
    memory = torch.randn(3, 30, 6)
    batch = memory.clone()
    for i, n in enumerate(lengths):
        batch[i, n:] = 50.0  # as of an encoder that does not blank it
    for targets in (None, torch.tensor([9, 4, 2])):
        together = model(batch, torch.tensor(lengths), targets)
        for i, n in enumerate(lengths):
            alone = model(
                memory[i : i + 1, :n],
                torch.tensor([n]),
                None if targets is None else targets[i : i + 1],
            )
            count = alone[1].item()
            assert together[1][i] == count
            torch.testing.assert_close(
                together[0][i, :count], alone[0][0, :count]
            )
            torch.testing.assert_close(together[2][i, :n], alone[2][0])
            assert together[2][i, n:].abs().sum() == 0
            torch.testing.assert_close(together[3][i], alone[3][0])


def test_scaling_leaves_what_is_returned_alone():
    """The predicted number is to be compared with the true one."""
    model = predictor()
    memory, lengths = torch.randn(2, 20, 6), torch.tensor([20, 15])
    _, _, free, n_free = model(memory, lengths)
    _, _, told, n_told = model(memory, lengths, torch.tensor([19, 2]))
    assert torch.equal(free, told) and torch.equal(n_free, n_told)
    torch.testing.assert_close(free.sum(dim=1), n_free)


def test_autocast_does_not_reach_it():
    model = predictor()
    memory, lengths = torch.randn(2, 300, 6), torch.tensor([300, 200])
    for targets in (None, torch.tensor([100, 70])):
        full = model(memory, lengths, targets)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(memory, lengths, targets)
        for own, other in zip(half, full, strict=True):
            assert own.dtype == other.dtype and torch.equal(own, other)
    h = torch.randn(1, 300, 2)
    alphas = torch.full((1, 300), 1 / 3)
    wide = cif_overlap(h, alphas, 99)
    rounded = cif_overlap(h.bfloat16(), alphas, 99)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - wide).abs().max() < 0.03


def test_the_quantity_teaches_the_weights():
    model = predictor()
    _, _, _, n_hat = model(torch.randn(2, 20, 6), torch.tensor([20, 9]))
    n_hat.sum().backward()
    assert model.cif_conv1d.weight.grad.abs().sum() > 0
    assert model.cif_output.bias.grad.item() > 0
