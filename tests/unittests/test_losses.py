"""Losses against numbers worked out on paper, and against autograd.

Authors
 * The esr_lobes contributors
"""

import math

import pytest
import torch
import torch.nn.functional as F

from esr_lobes import losses
from esr_lobes.heads import ModalityDiscriminator, reverse_gradient


def test_pairwise_loss_is_clip_loss():
    torch.manual_seed(0)
    logits = torch.randn(6, 6)
    diagonal = torch.arange(6)
    expected = F.cross_entropy(logits, diagonal) / 2
    expected += F.cross_entropy(logits.t(), diagonal) / 2
    positives = losses.pairwise_positives(diagonal)
    assert torch.allclose(losses.contrastive_loss(logits, positives), expected)


def test_two_by_two_on_paper():
    # Rows: -log(3/4), -log(3/4); the columns are the same.
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])
    positives = losses.pairwise_positives(torch.arange(2))
    loss = losses.contrastive_loss(logits, positives)
    assert loss.item() == pytest.approx(math.log(4 / 3))


def test_same_style_against_slow_loop():
    torch.manual_seed(1)
    styles = torch.tensor([0, 1, 0, 2, 1])
    logits = torch.randn(5, 5)
    total = 0.0
    for table in (logits, logits.t()):
        for i in range(5):
            partners = [j for j in range(5) if styles[j] == styles[i]]
            for j in partners:
                share = -torch.log_softmax(table[i], dim=0)[j]
                total += share / len(partners) / 5 / 2
    positives = losses.same_style_positives(styles)
    assert torch.allclose(losses.contrastive_loss(logits, positives), total)


def test_same_style_does_not_push_twins_apart():
    """With one style everywhere equal logits are already the optimum."""
    logits = torch.zeros(4, 4, requires_grad=True)
    styles = torch.zeros(4, dtype=torch.long)
    losses.contrastive_loss(
        logits, losses.same_style_positives(styles)
    ).backward()
    assert logits.grad.abs().max() < 1e-7
    logits = torch.zeros(4, 4, requires_grad=True)
    losses.contrastive_loss(
        logits, losses.pairwise_positives(styles)
    ).backward()
    assert logits.grad.abs().max() > 0.1


def test_contrastive_gradient_by_differences():
    torch.manual_seed(2)
    styles = torch.tensor([0, 1, 1])
    logits = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    positives = losses.same_style_positives(styles)
    assert torch.autograd.gradcheck(
        lambda x: losses.contrastive_loss(x, positives), (logits,)
    )


def test_logit_scale_starts_learns_and_is_clamped():
    scale = losses.LogitScale(temperature=0.07, maximum=20.0)
    assert scale.value.item() == pytest.approx(1 / 0.07, rel=1e-5)
    scale(torch.tensor(1.0)).backward()
    assert scale.log_scale.grad.item() == pytest.approx(1 / 0.07, rel=1e-5)
    with torch.no_grad():
        scale.log_scale.fill_(10.0)
    assert scale.value.item() == pytest.approx(20.0)


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_reversed_gradient_is_minus_weight_times_plain(weight):
    torch.manual_seed(3)
    x = torch.randn(4, 8, requires_grad=True)
    plain = torch.autograd.grad(x.pow(3).sum(), x)[0]
    turned = torch.autograd.grad(reverse_gradient(x, weight).pow(3).sum(), x)[0]
    assert torch.allclose(turned, -weight * plain)


def test_adversarial_gradient_passes_once():
    """The published code passed it twice, 21-fold at a weight of 0.05."""
    torch.manual_seed(4)
    discriminator = ModalityDiscriminator(8)
    speech = torch.randn(5, 8, requires_grad=True)
    text = torch.randn(3, 8)
    truth = torch.tensor([1.0] * 5 + [0.0] * 3)
    plain = F.binary_cross_entropy_with_logits(
        discriminator(torch.cat([speech, text])), truth
    )
    to_speech, to_first = torch.autograd.grad(
        plain, [speech, discriminator[0].weight]
    )
    loss = 0.05 * losses.adversarial_loss(discriminator, speech, text)
    assert loss.item() == pytest.approx(0.05 * plain.item())
    turned, learned = torch.autograd.grad(
        loss, [speech, discriminator[0].weight]
    )
    assert torch.allclose(turned, -0.05 * to_speech, atol=1e-8)
    assert torch.allclose(learned, 0.05 * to_first, atol=1e-8)
