"""Guide-Space's Eq. 3-8 against loops over plain numbers, one case worked by hand each, and their limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ffd_continual.strategies.learners.guide_losses import (
    attention_weights,
    confidence,
    draw,
    guide_loss,
    pull_loss,
    push_loss,
    weighted_bce,
)

TAU = 0.4


def _unit(generator: np.random.Generator, count: int, dim: int = 5) -> torch.Tensor:
    values = generator.standard_normal((count, dim))
    return torch.tensor(values / np.linalg.norm(values, axis=1, keepdims=True))


@pytest.fixture
def case() -> dict[str, Any]:
    rng = np.random.default_rng(4)
    domains, stored_domains = [0, 1, 2, 1, 0], [0, 0, 1, 2, 2, 1, 0]
    return {
        "f": _unit(rng, 5),
        "g": _unit(rng, 4),
        "m": _unit(rng, 7),
        "own": [0, 2, 3, 2, 0],
        "weights": [0.5, 1.5, 1.0, 0.7, 1.3],
        "domains": domains,
        "stored_domains": stored_domains,
        "foreign": torch.tensor([[a != b for b in stored_domains] for a in domains]),
    }


def _e(a: torch.Tensor, b: torch.Tensor) -> float:
    return math.exp(sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / TAU)


def test_guide_loss_by_hand() -> None:
    """f = e_own = (1, 0), the other guide (-1, 0), one foreign stored feature (0, 1), tau 1, w 2:
    2 * -log(e / (e + 1/e + 1)) = 2 * log(1 + e^-2 + e^-1)."""
    f = torch.tensor([[1.0, 0.0]])
    guides, stored = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    made = guide_loss(f, guides, torch.tensor([0]), stored, torch.tensor([[True, False]]), torch.tensor([2.0]), 1.0)
    assert float(made) == pytest.approx(2 * math.log(1 + math.exp(-2) + math.exp(-1)), rel=1e-6)


def test_guide_loss_against_loops(case: dict[str, Any]) -> None:
    f, g, m = case["f"], case["g"], case["m"]
    slow = 0.0
    for i in range(5):
        whole = sum(_e(f[i], guide) for guide in g)
        for j in range(7):
            if case["domains"][i] != case["stored_domains"][j]:
                whole += _e(f[i], m[j])
        slow += case["weights"][i] * -math.log(_e(f[i], g[case["own"][i]]) / whole) / 5
    weights = torch.tensor(case["weights"], dtype=torch.float64)
    made = guide_loss(f, g, torch.tensor(case["own"]), m, case["foreign"], weights, TAU)
    assert float(made) == pytest.approx(slow, rel=1e-10)
    empty = guide_loss(f, g, torch.tensor(case["own"]), m[:0], case["foreign"][:, :0], weights, TAU)
    assert float(empty) < float(made)


def test_guide_loss_draws_to_the_own_embedding_and_from_the_others(case: dict[str, Any]) -> None:
    f = case["f"].clone().requires_grad_()
    own, ones = torch.tensor(case["own"]), torch.ones(5, dtype=torch.float64)
    loss = guide_loss(f, case["g"], own, case["m"][:0], case["foreign"][:, :0], ones, TAU)
    (gradient,) = torch.autograd.grad(loss, f)
    assert bool(((-gradient * case["g"][own]).sum(1) > (-gradient * case["g"][(own + 1) % 4]).sum(1)).all())


def test_weighted_bce_by_hand_and_plain_with_weights_of_one() -> None:
    z, target = torch.tensor([0.0, math.log(3.0), -1.0]), torch.tensor([1, 0, 0])
    # -log(1/2) = log 2; -log(1 - 3/4) = log 4; log(1 + e^-1)
    slow = (3 * math.log(2) + 1 * math.log(4) + 0.5 * math.log(1 + math.exp(-1))) / 3
    assert float(weighted_bce(z, target, torch.tensor([3.0, 1.0, 0.5]))) == pytest.approx(slow, rel=1e-6)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(z, target.float())
    assert float(weighted_bce(z, target, torch.ones(3))) == pytest.approx(float(plain), rel=1e-6)


def test_confidence_by_hand() -> None:
    """A forged face of type 1: one neighbour of its own (cos 1 -> 1), one real (cos 0 -> .5), one of type 2 (cos .6 ->
    .8, counts by gamma .25 -> .2): 1 / (1 + .5 + .2). A real face: own .5, then .5 + .8 against it, forged or not."""
    similarity = torch.tensor([[1.0, 0.0, 0.6], [0.0, 0.0, 0.6], [0.9, 0.5, 0.1]])
    kinds = torch.tensor([[1, 0, 2], [0, 1, 2], [3, 3, 3]])
    made = confidence(similarity, kinds, torch.tensor([1, 0, 3]), torch.ones(3, 3, dtype=torch.bool), 0.25)
    assert made.tolist() == pytest.approx([1 / 1.7, 0.5 / 1.8, 1.0], rel=1e-6)


def test_confidence_against_loops_and_its_order() -> None:
    rng = np.random.default_rng(0)
    similarity, kinds = rng.uniform(-1, 1, (6, 9)), rng.integers(0, 4, (6, 9))
    own, found = rng.integers(0, 4, 6), rng.random((6, 9)) < 0.7
    found[5] = False
    made = confidence(torch.tensor(similarity), torch.tensor(kinds), torch.tensor(own), torch.tensor(found), gamma=0.3)
    for i in range(6):
        good = bad = 0.0
        for j in range(9):
            if not found[i, j]:
                continue
            s = (1 + similarity[i, j]) / 2
            if kinds[i, j] == own[i]:
                good += s
            else:
                bad += s if own[i] == 0 or kinds[i, j] == 0 else 0.3 * s
        wanted = good / (good + bad) if good + bad else 1.0
        assert float(made[i]) == pytest.approx(wanted, rel=1e-6)
    same, all_found = torch.full((1, 2), 0.5), torch.ones(1, 2, dtype=torch.bool)
    real = confidence(same, torch.tensor([[1, 0]]), torch.tensor([1]), all_found, 0.5)
    other = confidence(same, torch.tensor([[1, 2]]), torch.tensor([1]), all_found, 0.5)
    assert float(real) < float(other)


def test_attention_falls_with_confidence_and_has_mean_one() -> None:
    """c = 0, 1: weights 2/(1 + e^-1) and 2 e^-1/(1 + e^-1)."""
    made = attention_weights(torch.tensor([0.0, 1.0]))
    assert made.tolist() == pytest.approx([2 / (1 + math.exp(-1)), 2 * math.exp(-1) / (1 + math.exp(-1))], rel=1e-6)
    many = attention_weights(torch.linspace(0, 1, 33))
    assert float(many.mean()) == pytest.approx(1.0, rel=1e-6)
    assert bool((many.diff() < 0).all())
    assert torch.allclose(attention_weights(torch.full((7,), 0.3)), torch.ones(7))


def test_draw_takes_candidates_only_each_once_and_all_as_often() -> None:
    torch.manual_seed(0)
    candidates = torch.tensor(
        [[True, False, True, True, True, True], [False] * 6, [False, True, False, False, True, False]]
    )
    seen = torch.zeros(3, 6)
    for _ in range(600):
        index, drawn = draw(candidates, 3)
        assert drawn.sum(1).tolist() == [3, 0, 2]
        for row in range(3):
            chosen = index[row][drawn[row]].tolist()
            assert len(set(chosen)) == len(chosen)
            seen[row, chosen] += 1
    assert not bool((seen[~candidates] > 0).any())
    assert bool(((seen[0][candidates[0]] / 600 - 3 / 5).abs() < 0.08).all())
    index, drawn = draw(candidates[:, :0], 3)
    assert index.shape == drawn.shape == (3, 0)


def test_push_by_hand_and_against_loops(case: dict[str, Any]) -> None:
    """f = (1, 0), e = (0, 1), q = (1, 0) and one not drawn, tau 1: log((1 + e) / 1)."""
    f, guide = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    made = push_loss(f, guide, torch.eye(2), torch.tensor([[0, 1]]), torch.tensor([[True, False]]), 1.0)
    assert float(made) == pytest.approx(math.log(1 + math.e), rel=1e-6)

    index = torch.tensor([[2, 3], [0, 4], [1, 5], [6, 3], [4, 2]])
    drawn = torch.tensor([[True, True], [True, False], [False, False], [True, True], [False, True]])
    guide = case["g"][torch.tensor(case["own"])]
    losses = []
    for i in range(5):
        chosen = [int(index[i, k]) for k in range(2) if drawn[i, k]]
        if chosen:
            positive = _e(case["f"][i], guide[i])
            losses.append(-math.log(positive / (positive + sum(_e(case["f"][i], case["m"][q]) for q in chosen))))
    made = push_loss(case["f"], guide, case["m"], index, drawn, TAU)
    assert len(losses) == 4
    assert float(made) == pytest.approx(sum(losses) / 4, rel=1e-10)


def test_pull_by_hand_and_against_loops(case: dict[str, Any]) -> None:
    """f = p = (1, 0), one foreign (0, 1), tau 1: log(1 + e^-1)."""
    f = torch.tensor([[1.0, 0.0]])
    made = pull_loss(f, torch.eye(2), torch.tensor([[0]]), torch.tensor([[True]]), torch.tensor([[False, True]]), 1.0)
    assert float(made) == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-6)

    index = torch.tensor([[0, 1], [2, 5], [3, 4], [5, 2], [6, 0]])
    drawn = torch.tensor([[True, True], [True, False], [False, False], [True, True], [False, True]])
    losses = []
    for i in range(5):
        negative = sum(
            _e(case["f"][i], case["m"][j]) for j in range(7) if case["stored_domains"][j] != case["domains"][i]
        )
        terms = []
        for k in range(2):
            if drawn[i, k]:
                positive = _e(case["f"][i], case["m"][int(index[i, k])])
                terms.append(-math.log(positive / (positive + negative)))
        if terms:
            losses.append(sum(terms) / len(terms))
    made = pull_loss(case["f"], case["m"], index, drawn, case["foreign"], TAU)
    assert float(made) == pytest.approx(sum(losses) / len(losses), rel=1e-10)


def test_with_nothing_drawn_both_are_zero_with_a_finite_gradient(case: dict[str, Any]) -> None:
    f = case["f"].clone().requires_grad_()
    index, drawn = torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5, 2, dtype=torch.bool)
    none_foreign = torch.zeros(5, 7, dtype=torch.bool)
    total = push_loss(f, case["g"][torch.tensor(case["own"])], case["m"], index, drawn, TAU)
    total = total + pull_loss(f, case["m"], index, drawn, none_foreign, TAU)
    assert float(total.detach()) == 0.0
    (gradient,) = torch.autograd.grad(total, f)
    assert bool((gradient == 0).all())


@pytest.mark.parametrize("part", ["push", "pull"])
def test_a_step_down_the_gradient_does_what_the_name_says(case: dict[str, Any], part: str) -> None:
    f = case["f"].clone().requires_grad_()
    index, drawn = torch.tensor([[0], [2], [3], [2], [6]]), torch.ones(5, 1, dtype=torch.bool)
    if part == "push":
        loss = push_loss(f, case["g"][torch.tensor(case["own"])], case["m"], index, drawn, TAU)
    else:
        loss = pull_loss(f, case["m"], index, drawn, case["foreign"], TAU)
    (gradient,) = torch.autograd.grad(loss, f)
    change = -(gradient * case["m"][index.squeeze(1)]).sum(1)
    assert bool((change < 0).all() if part == "push" else (change > 0).all())
