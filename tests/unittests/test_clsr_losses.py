"""Losses of content retrieval against numbers worked out on paper.

Authors
 * The esr_lobes contributors
"""

import math

import pytest
import torch
import torch.nn.functional as F

from esr_lobes.clsr import losses
from esr_lobes.clsr.sanm import real_steps
from esr_lobes.losses import LogitScale

LENGTHS = torch.tensor([4, 2, 0])


@pytest.fixture
def batch():
    """Logits of three rows of 4, 2 and 0 tokens, and their targets."""
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 6, (3, 4))
    return logits, targets


def test_cross_entropy_is_the_divergence_from_written_out_targets(batch):
    logits, targets = batch
    smoothed = torch.full((3, 4, 6), 0.1 / 5, dtype=torch.float64)
    smoothed.scatter_(-1, targets.unsqueeze(-1), 0.9)
    each = F.kl_div(logits.log_softmax(-1), smoothed, reduction="none")
    expected = (each.sum(-1)[0].sum() + each.sum(-1)[1, :2].sum()) / 6
    found = losses.label_smoothed_cross_entropy(logits, targets, LENGTHS)
    assert torch.allclose(found, expected)


def test_cross_entropy_without_smoothing_is_the_usual_one(batch):
    logits, targets = batch
    expected = F.cross_entropy(logits[1, :2], targets[1, :2])
    found = losses.label_smoothed_cross_entropy(
        logits[1:], targets[1:], LENGTHS[1:], smoothing=0.0
    )
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("behind", [-1, -100, 5])
def test_nothing_behind_the_end_counts(batch, behind):
    logits, targets = batch
    is_real = real_steps(LENGTHS, 4)
    marked = targets.masked_fill(~is_real, behind)
    noisy = logits.detach().masked_fill(~is_real.unsqueeze(-1), 3.0)
    noisy.requires_grad_()
    coins = [torch.Generator().manual_seed(1) for _ in range(2)]
    for loss, more in [
        (losses.label_smoothed_cross_entropy, [{}, {}]),
        (losses.mwer_loss, [{"generator": c} for c in coins]),
    ]:
        there = loss(logits, targets, LENGTHS, **more[0])
        here = loss(noisy, marked, LENGTHS, **more[1])
        assert torch.equal(there, here)
        gradient = torch.autograd.grad(here, noisy)[0]
        assert gradient[~is_real].abs().max() == 0
        assert gradient[is_real].abs().max() > 0


def test_a_batch_without_any_token_costs_nothing():
    logits = torch.zeros(2, 0, 6, requires_grad=True)
    targets = torch.zeros(2, 0, dtype=torch.long)
    lengths = torch.zeros(2, dtype=torch.long)
    for loss in (losses.label_smoothed_cross_entropy, losses.mwer_loss):
        assert loss(logits, targets, lengths).item() == 0.0
    assert losses.quantity_loss(torch.tensor([0.5, 0]), lengths).item() == 0.5


def test_half_precision_loses_nothing_more(batch):
    """Under autocast logits come as bfloat16; sums over them need more."""
    logits, targets = batch
    half = logits.detach().bfloat16()

    def losses_of(x):
        yield losses.label_smoothed_cross_entropy(x, targets, LENGTHS)
        generator = torch.Generator().manual_seed(0)
        yield losses.mwer_loss(x, targets, LENGTHS, generator=generator)
        yield losses.content_contrastive_loss(x[0, :, :4], torch.arange(4))

    for a, b in zip(losses_of(half), losses_of(half.float()), strict=True):
        assert a.dtype == torch.float32 and torch.equal(a, b)


def test_quantity_on_paper():
    predicted = torch.tensor([3.5, 2.0, 0.25], requires_grad=True)
    # 0.5 + 0 + 0.25 over 6 tokens, or over 3 rows.
    loss = losses.quantity_loss(predicted, LENGTHS)
    assert loss.item() == pytest.approx(0.75 / 6)
    by_row = losses.quantity_loss(predicted, LENGTHS, is_normalized=False)
    assert by_row.item() == pytest.approx(0.75 / 3)
    loss.backward()
    assert predicted.grad.tolist() == pytest.approx([-1 / 6, 0, 1 / 6])


def candidates(generator, n_candidates=4, shape=(3, 4)):
    """Which positions take the next best token, drawn as the loss does."""
    return torch.rand((n_candidates, *shape), generator=generator) < 0.5


def test_mwer_against_a_slow_loop(batch):
    logits, targets = batch
    coins = candidates(torch.Generator().manual_seed(7))
    scores = logits.log_softmax(-1)
    total = 0.0
    for b, length in enumerate(LENGTHS.tolist()):
        sums, errors = [], []
        for c in range(4):
            said = scores.new_zeros(())
            wrong = 0
            for t in range(length):
                row = scores[b, t].clone()
                if coins[c, b, t]:
                    row[row.argmax()] = -math.inf
                said = said + row.max()
                wrong += int(row.argmax() != targets[b, t])
            sums.append(said)
            errors.append(float(wrong))
        p = torch.softmax(torch.stack(sums), 0)
        mean = sum(errors) / 4
        total += sum(p[c] * (errors[c] - mean) for c in range(4))
    found = losses.mwer_loss(
        logits, targets, LENGTHS, generator=torch.Generator().manual_seed(7)
    )
    assert torch.allclose(found, total / 3)
    assert found != 0
    expected = torch.autograd.grad(total / 3, logits)[0]
    assert torch.allclose(torch.autograd.grad(found, logits)[0], expected)


def test_mwer_on_paper():
    """One token, two words of 0.8 and 0.2: so are two unlike candidates."""
    logits = torch.tensor([[[0.8, 0.2]]]).log()
    for right, expected in (0, 0.2 - 0.5), (1, 0.8 - 0.5):
        seen = set()
        for seed in range(10):
            loss = losses.mwer_loss(
                logits,
                torch.tensor([[right]]),
                torch.tensor([1]),
                n_candidates=2,
                generator=torch.Generator().manual_seed(seed),
            )
            coins = candidates(torch.Generator().manual_seed(seed), 2, (1, 1))
            # Like candidates leave nothing to prefer.
            due = expected if coins.sum() == 1 else 0.0
            assert loss.item() == pytest.approx(due, abs=1e-6)
            seen.add(due)
        assert seen == {0.0, expected}


def test_mwer_is_repeated_by_its_seed_and_teaches(batch):
    logits, targets = batch

    def loss_of(seed, rows):
        generator = torch.Generator().manual_seed(seed)
        return losses.mwer_loss(rows, targets, LENGTHS, generator=generator)

    assert loss_of(3, logits) == loss_of(3, logits)
    assert len({loss_of(seed, logits).item() for seed in range(5)}) > 1
    rows = logits.detach().clone().requires_grad_()
    optimizer = torch.optim.SGD([rows], lr=1.0)
    is_real = real_steps(LENGTHS, 4)
    before = (rows.argmax(-1) != targets)[is_real].sum()
    for seed in range(100):
        optimizer.zero_grad()
        loss_of(seed, rows).backward()
        optimizer.step()
    assert (rows.argmax(-1) != targets)[is_real].sum() < before


def test_equal_scores_cost_log_of_the_batch():
    for n in (2, 5):
        loss = losses.content_contrastive_loss(
            torch.full((n, n), 3.0), torch.arange(n)
        )
        assert loss.item() == pytest.approx(math.log(n))


def test_contrastive_loss_is_the_printed_formula_and_symmetric():
    torch.manual_seed(1)
    s = torch.randn(5, 5, dtype=torch.float64)
    total = 0.0
    for i in range(5):
        total -= (
            torch.log_softmax(s[i], 0)[i] + torch.log_softmax(s[:, i], 0)[i]
        )
    ids = torch.arange(5)
    found = losses.content_contrastive_loss(s, ids)
    assert torch.allclose(found, total / 10)
    assert torch.allclose(losses.content_contrastive_loss(s.t(), ids), found)


def test_questions_about_one_context_are_no_rivals():
    """A shared context in the batch must not be pushed off its questions."""
    torch.manual_seed(2)
    s = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([9, 4, 9, 2])
    loss = losses.content_contrastive_loss(s, ids)
    total = 0.0
    for i in range(4):
        rivals = [j for j in range(4) if j == i or ids[j] != ids[i]]
        total -= s[i, i] * 2 - s[i, rivals].logsumexp(0)
        total += s[rivals, i].logsumexp(0)
    assert torch.allclose(loss, total / 8)
    gradient = torch.autograd.grad(loss, s)[0]
    assert gradient[0, 2] == gradient[2, 0] == 0
    assert (gradient[0, 1], gradient[0, 0]) > (0, -1) and gradient[0, 0] < 0
    # A batch about one context only has nothing to tell apart.
    loss = losses.content_contrastive_loss(s, torch.full((4,), 9))
    assert loss.item() == 0.0


def test_temperature_learns_or_stands():
    torch.manual_seed(3)
    cosines = F.normalize(torch.randn(6, 8), dim=-1)
    cosines = cosines @ F.normalize(torch.randn(6, 8), dim=-1).t()
    scale = LogitScale(temperature=0.02)
    ids = torch.arange(6)
    loss = losses.content_contrastive_loss(scale(cosines), ids)
    expected = losses.content_contrastive_loss(cosines / 0.02, ids)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    assert scale.log_scale.grad.abs() > 0
    fixed = LogitScale(temperature=0.02).requires_grad_(False)
    cosines.requires_grad_()
    losses.content_contrastive_loss(fixed(cosines), ids).backward()
    assert fixed.log_scale.grad is None and cosines.grad.abs().max() > 0
