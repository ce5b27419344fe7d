"""The losses of distillation by hand and by scipy, and which texts of a teacher are fit to learn from."""

import math
from typing import Any

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from weighin.adapters import _distill as losses
from weighin.adapters._sample import Writing, Written, beginnings, circles, fit_to_learn
from weighin.results.errors import WeighinError

OBJECTIVES: list[losses.Objective] = ["forward_kl", "reverse_kl", "jensen_shannon"]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2


def by_scipy(p: Any, q: Any, objective: str) -> float:
    """Of a student p and a teacher q."""
    if objective == "jensen_shannon":
        return float(jensenshannon(p, q) ** 2)
    return float(rel_entr(q, p).sum() if objective == "forward_kl" else rel_entr(p, q).sum())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_divergences_are_those_of_scipy(objective: losses.Objective) -> None:
    student, teacher = drawn(5, 7).log_softmax(-1), drawn(5, 7, seed=1).log_softmax(-1)
    found = losses.divergence(student, teacher, objective)
    right = [by_scipy(p, q, objective) for p, q in zip(student.exp().numpy(), teacher.exp().numpy(), strict=True)]
    assert found.tolist() == pytest.approx(right, rel=1e-4)
    assert losses.divergence(teacher, teacher, objective).abs().max() < 1e-6


def test_directions_of_the_divergences_by_hand() -> None:
    student, teacher = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    forward = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    reverse = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert losses.divergence(student, teacher, "forward_kl").item() == pytest.approx(forward, abs=1e-6)
    assert losses.divergence(student, teacher, "reverse_kl").item() == pytest.approx(reverse, abs=1e-6)
    far = torch.tensor([[1.0, 0.0]]).clamp_min(1e-30).log()
    other = far.flip(-1)
    assert losses.divergence(far, other, "jensen_shannon").item() == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_the_gradient_of_forward_kl_is_the_difference_of_the_probabilities(temperature: float) -> None:
    logits, theirs = drawn(1, 6).requires_grad_(), drawn(1, 6, seed=1)
    teacher = losses.mixture([theirs], [1.0], temperature)
    losses.soft_loss(logits, teacher, "forward_kl", temperature).backward()
    apart = (logits / temperature).softmax(-1) - teacher.exp()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, temperature * apart, atol=1e-6)  # 1/T of the softmax, T^2 of the loss


def test_the_gradient_of_reverse_kl_by_hand() -> None:
    logits, teacher = drawn(1, 6).requires_grad_(), drawn(1, 6, seed=1).log_softmax(-1)
    losses.soft_loss(logits, teacher, "reverse_kl", 1.0).backward()
    p = logits.detach().log_softmax(-1)
    right = p.exp() * ((p - teacher) - (p.exp() * (p - teacher)).sum())
    assert logits.grad is not None and torch.allclose(logits.grad, right, atol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_downhill_brings_the_student_nearer(objective: losses.Objective) -> None:
    logits, teacher = drawn(4, 6).requires_grad_(), drawn(4, 6, seed=1).log_softmax(-1)
    before = losses.soft_loss(logits, teacher, objective, 1.0)
    before.backward()
    assert logits.grad is not None
    after = losses.soft_loss(logits.detach() - 0.1 * logits.grad, teacher, objective, 1.0)
    assert after < before


def test_several_teachers_are_the_mean_of_their_probabilities() -> None:
    one, two = drawn(3, 5), drawn(3, 5, seed=1)
    found = losses.mixture([one, two], [1.0, 3.0], 2.0)
    right = 0.25 * (one / 2).softmax(-1) + 0.75 * (two / 2).softmax(-1)
    assert torch.allclose(found.exp(), right, atol=1e-6)


def test_filling_and_prompts_are_no_positions() -> None:
    logits, labels = drawn(2, 4, 5), torch.tensor([[7, 1, 2, 3], [7, -100, 4, -100]])
    found, tokens = losses.positions(logits, labels)
    assert tokens.tolist() == [1, 2, 3, 4]
    assert torch.equal(found, torch.stack([logits[0, 0], logits[0, 1], logits[0, 2], logits[1, 1]]))


def test_layers_are_matched_in_proportion() -> None:
    assert losses.layer_pairs(2, 4) == [(1, 2), (2, 4)]
    assert losses.layer_pairs(4, 4) == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert losses.layer_pairs(4, 2) == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert losses.layer_pairs(3, 30)[-1] == (3, 30)


def test_hidden_states_are_compared_where_there_are_tokens() -> None:
    ours, theirs = [drawn(2, 3, 4, seed=i) for i in range(3)], [drawn(2, 3, 4, seed=i + 9) for i in range(5)]
    real = torch.tensor([[True, True, False], [True, False, False]])
    found = losses.hidden_loss(ours, theirs, real, None)
    parts = []
    for i, j in [(1, 2), (2, 4)]:
        apart = [(ours[i][r, c] - theirs[j][r, c]).square().mean() for r, c in [(0, 0), (0, 1), (1, 0)]]
        size = [theirs[j][r, c].square().mean() for r, c in [(0, 0), (0, 1), (1, 0)]]
        parts.append(torch.stack(apart).mean() / torch.stack(size).mean())
    assert found.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-5)
    for state in ours:
        state[~real] = 1e9
    assert losses.hidden_loss(ours, theirs, real, None).item() == pytest.approx(found.item())
    maps = [torch.nn.Linear(4, 6, bias=False) for _ in range(2)]
    assert losses.hidden_loss(ours, [drawn(2, 3, 6) for _ in range(5)], real, maps).isfinite()


def test_texts_that_go_in_circles_are_known() -> None:
    assert circles([5, 6, 7, 8] * 6) and circles([3] * 12)
    assert not circles(list(range(40))) and not circles([1, 2]) and not circles([1, 2, 3, 4] * 2)


def test_texts_not_fit_to_learn_from_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    how = Writing(length=20, temperature=1.0, batch=4, end=[1], least=-3.0)
    good = Written([0], [5, 6, 7, 1], -1.0)
    bad = [Written([0], [1], -0.1), Written([0], [5] * 20, -0.1), Written([0], [5, 6], -4.0)]
    bad.append(Written([0], [5, 6], math.nan))
    with caplog.at_level("INFO"):
        assert fit_to_learn([good, *bad], how, "distill") == [good]
    assert "1 of 5 generated texts kept (dropped: 1 empty, 1 in circles, 2 too unlikely)" in caplog.text
    with pytest.raises(WeighinError, match="none of the teacher's 4 texts is fit to learn from"):
        fit_to_learn(bad, how, "distill")


def test_a_beginning_is_at_most_half_a_text() -> None:
    assert beginnings([list(range(20)), list(range(6)), [1]], 8) == [list(range(8)), [0, 1, 2], [1]]
