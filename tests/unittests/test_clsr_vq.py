"""The VQ adaptor against the form that makes every one-hot vector.

Authors
 * The esr_lobes contributors
"""

import pytest
import torch
import torch.nn.functional as F

from esr_lobes.clsr.vq import INPUTS, VQAdaptor

BANNED = (0, 3)


def draw(n_words=7, width=5, dtype=torch.float64):
    torch.manual_seed(0)
    logits = torch.randn(2, 4, n_words, dtype=dtype, requires_grad=True)
    table = torch.randn(n_words, width, dtype=dtype, requires_grad=True)
    return logits, table


def one_hot_form(logits, table, takes, temperature=0.1, banned=()):
    """As the paper prints it: q + p - sg(p), times the table."""
    allowed = [i for i in range(logits.shape[-1]) if i not in banned]
    scores, rows = logits[..., allowed], table[allowed]
    if takes == "probabilities":
        scores = scores.softmax(-1)
    p = (scores / temperature).softmax(-1)
    q = F.one_hot(scores.argmax(-1), len(allowed)).to(p.dtype)
    return (q + p - p.detach()) @ rows


@pytest.mark.parametrize("takes", INPUTS)
@pytest.mark.parametrize("banned", [(), BANNED])
def test_gradients_are_those_of_the_one_hot_form(takes, banned):
    logits, table = draw()
    torch.manual_seed(1)
    seen = torch.randn(2, 4, 5, dtype=torch.float64)
    cheap = VQAdaptor(takes=takes, banned_ids=banned)(logits, table)
    plain = one_hot_form(logits, table, takes, banned=banned)
    assert torch.allclose(cheap, plain, atol=1e-14)
    found = torch.autograd.grad((cheap * seen).sum(), [logits, table])
    expected = torch.autograd.grad((plain * seen).sum(), [logits, table])
    for a, b in zip(found, expected, strict=True):
        assert b.abs().max() > 1e-3
        assert torch.allclose(a, b, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("takes", INPUTS)
def test_forward_is_the_lookup_bit_for_bit(dtype, takes):
    logits, table = draw(n_words=50, width=16, dtype=dtype)
    vq = VQAdaptor(takes=takes)
    rows = vq(logits, table)
    assert torch.equal(rows, table[logits.argmax(-1)])
    assert rows.requires_grad
    with torch.no_grad():
        assert torch.equal(vq(logits, table), rows)


def test_a_table_that_stands_costs_no_gradient():
    logits, table = draw()
    table = table.detach()
    rows = VQAdaptor()(logits, table)
    rows.sum().backward()
    assert logits.grad.abs().max() > 0 and table.grad is None


def test_a_table_learns_where_the_recogniser_stands():
    """Post-training: the text encoder learns, recognition does not."""
    logits, table = draw()
    rows = VQAdaptor()(logits.detach(), table)
    rows.sum().backward()
    counts = torch.bincount(logits.argmax(-1).flatten(), minlength=7)
    assert torch.equal(table.grad, counts.double().unsqueeze(1).expand(7, 5))


@pytest.mark.parametrize("takes", INPUTS)
def test_banned_tokens_are_never_chosen_and_not_taught(takes):
    logits, table = draw()
    with torch.no_grad():
        logits[..., list(BANNED)] += 100.0
    vq = VQAdaptor(takes=takes, banned_ids=BANNED)
    assert not set(vq.best(logits).flatten().tolist()) & set(BANNED)
    rows = vq(logits, table)
    assert torch.equal(rows, table[vq.best(logits)])
    rows.pow(2).sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[..., list(BANNED)].abs().max() == 0
    assert logits.grad.abs().max() > 0
    assert not vq.state_dict()  # what is banned follows from the tokenizer


def test_norms_count_only_what_passes_through():
    logits, table = draw()
    vq = VQAdaptor(keeps_norms=True)
    loss = vq(logits, table).pow(2).sum()
    through = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    (loss + 10 * logits.sum()).backward()
    norms = vq.gradient_norms
    assert norms["logits"] == pytest.approx(through.norm().item())
    expected = 2 * table[logits.argmax(-1)].norm()
    assert norms["embeddings"] == pytest.approx(expected.item())
    assert not norms["logits"].requires_grad
    quiet = VQAdaptor()
    quiet(logits, table).sum().backward()
    assert not quiet.gradient_norms


@pytest.mark.parametrize("takes", INPUTS)
def test_without_vq_it_is_the_mixture(takes):
    logits, table = draw()
    vq = VQAdaptor(takes=takes, is_hard=False, keeps_norms=True)
    rows = vq(logits, table)
    scores = logits.softmax(-1) if takes == "probabilities" else logits
    expected = torch.einsum("bnv,vd->bnd", (10 * scores).softmax(-1), table)
    assert torch.allclose(rows, expected, atol=1e-12)
    assert (rows - table[logits.argmax(-1)]).abs().max() > 1e-3
    rows.pow(2).sum().backward()
    through = vq.gradient_norms["logits"].item()
    assert through == pytest.approx(logits.grad.norm().item())
    with torch.no_grad():
        assert torch.allclose(vq(logits, table), expected, atol=1e-12)


def gradient_at(sure, takes):
    """Norm of the gradient at logits whose best word is so probable."""
    n_words = 30522
    logits = torch.zeros(1, 1, n_words, dtype=torch.float64)
    rest = (1 - sure) / (n_words - 1)
    logits += torch.tensor(rest, dtype=torch.float64).log()
    logits[..., 5] = torch.tensor(sure, dtype=torch.float64).log()
    logits.requires_grad_()
    torch.manual_seed(0)
    table = torch.randn(n_words, 8, dtype=torch.float64)
    VQAdaptor(takes=takes)(logits, table).sum().backward()
    return logits.grad.norm().item()


def test_a_sure_recogniser_learns_through_probabilities_only():
    """Why the choice is there: ten times the logits leaves no doubt."""
    assert gradient_at(0.99, "logits") < 1e-12
    assert gradient_at(0.99, "probabilities") > 1e-5


def test_what_it_takes_is_checked():
    with pytest.raises(ValueError, match="probabilities"):
        VQAdaptor(takes="words")


def test_no_token_at_all():
    rows = VQAdaptor()(
        torch.zeros(2, 0, 7, requires_grad=True), torch.ones(7, 3)
    )
    assert rows.shape == (2, 0, 3)
