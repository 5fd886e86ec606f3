"""IIN's equations against loops that share no function with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ffd_continual.strategies.learners.iin_losses import (
    cross_correlation,
    decoupling,
    instance_contrast,
    mask_evidence,
    masked_mean,
    mixture,
    odds_mixture,
    top_share,
    trace_contrast,
    within_class,
)


def _unit(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    unit: Tensor = x / x.norm(dim=1, keepdim=True)
    return unit


def _dot(a: Tensor, b: Tensor) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


# instance contrast ------------------------------------------------------------------------------------------------


def test_instance_contrast_against_loops() -> None:
    query, key, negatives, t = _unit(5, 4), _unit(5, 4, seed=1), _unit(7, 4, seed=2), 0.2
    total = 0.0
    for q, k in zip(query, key, strict=True):
        own = math.exp(_dot(q, k) / t)
        total -= math.log(own / (own + sum(math.exp(_dot(q, n) / t) for n in negatives)))
    assert float(instance_contrast(query, key, negatives, t)) == pytest.approx(total / 5)


def test_instance_contrast_by_hand() -> None:
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    # own key at cosine 1, one negative at cosine 0, temperature 1: -log(e / (e + 1))
    assert float(instance_contrast(x, x, y, 1.0)) == pytest.approx(math.log(1 + math.exp(-1)))
    assert float(instance_contrast(x, y, x, 1.0)) == pytest.approx(math.log(1 + math.e))


def test_instance_contrast_limits() -> None:
    query, key, negatives = _unit(5, 4), _unit(5, 4, seed=1), _unit(7, 4, seed=2)
    assert float(instance_contrast(query, key, negatives[:0], 0.1)) == 0.0
    shuffled = instance_contrast(query, key, negatives.flip(0), 0.1)
    assert float(shuffled) == pytest.approx(float(instance_contrast(query, key, negatives, 0.1)))
    alone = instance_contrast(query, key, query[:1] * 0, 1e6)  # everything equally likely: log 2
    assert float(alone) == pytest.approx(math.log(2), abs=1e-5)


# decoupling -------------------------------------------------------------------------------------------------------


def _correlation(a: list[float], b: list[float], labels: list[int]) -> float:
    def centred(x: list[float]) -> list[float]:
        means = {c: float(np.mean([v for v, k in zip(x, labels, strict=True) if k == c])) for c in set(labels)}
        return [v - means[k] for v, k in zip(x, labels, strict=True)]

    p, q = centred(a), centred(b)
    return sum(x * y for x, y in zip(p, q, strict=True)) / math.sqrt(sum(x * x for x in p) * sum(y * y for y in q))


def test_cross_correlation_against_loops() -> None:
    a, b = _unit(9, 3, seed=3), _unit(9, 2, seed=4)
    labels = [0, 1, 0, 1, 1, 0, 0, 1, 1]
    found = cross_correlation(a, b, torch.tensor(labels), eps=0.0)
    for i in range(3):
        for j in range(2):
            assert float(found[i, j]) == pytest.approx(_correlation(a[:, i].tolist(), b[:, j].tolist(), labels))
    squares = [_correlation(a[:, i].tolist(), b[:, j].tolist(), labels) ** 2 for i in range(3) for j in range(2)]
    assert float(decoupling(a, b, torch.tensor(labels))) == pytest.approx(np.mean(squares), rel=1e-3)


def test_class_means_do_not_count() -> None:
    features = _unit(8, 3)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    moved = features + 50.0 * labels[:, None]
    assert torch.allclose(within_class(moved, labels), within_class(features, labels))
    for label in (0, 1):
        assert within_class(features, labels)[labels == label].sum(0).abs().max() < 1e-12
    other = _unit(8, 3, seed=1)
    still, shifted = decoupling(features, other, labels), decoupling(moved, other - 9 * labels[:, None], labels)
    assert float(still) == pytest.approx(float(shifted), rel=1e-6)


def test_decoupling_of_independent_and_of_equal_features() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(20000, 4, generator=generator), torch.randn(20000, 5, generator=generator)
    labels = torch.randint(0, 2, (20000,), generator=generator)
    assert float(decoupling(a, b, labels)) < 5e-4  # expectation 1 / B
    copies = cross_correlation(a, a, labels)
    assert torch.allclose(copies.diagonal(), torch.ones(4), atol=1e-3)
    assert torch.allclose(cross_correlation(a, -3 * a, labels).diagonal(), -torch.ones(4), atol=1e-3)
    assert float(decoupling(a[:, :1], a[:, :1] * 7 + 2, labels)) == pytest.approx(1.0, abs=1e-3)
    constant = torch.ones(20000, 1)
    assert float(decoupling(constant, a, labels)) == pytest.approx(0.0, abs=1e-6)


# trace --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "count"), [(0.25, 3), (0.3, 3), (0.34, 4), (0.0, 1), (1.0, 9), (1 / 9, 1), (0.112, 2)]
)
def test_top_share_counts_and_takes_the_largest(share: float, count: int) -> None:
    evidence = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = top_share(evidence, share)
    assert mask.shape == evidence.shape
    for values, chosen in zip(evidence.flatten(1).tolist(), mask.flatten(1).tolist(), strict=True):
        largest = sorted(range(9), key=lambda i: -values[i])[:count]
        assert [i for i in range(9) if chosen[i] == 1.0] == sorted(largest)
        assert chosen.count(0.0) == 9 - count


def test_top_share_gives_ties_to_the_earlier() -> None:
    flat = torch.tensor([1.0, 2.0, 2.0, 2.0]).view(1, 1, 2, 2)
    assert top_share(flat, 0.5).flatten().tolist() == [0.0, 1.0, 1.0, 0.0]
    assert top_share(torch.zeros(1, 1, 2, 2), 0.25).flatten().tolist() == [1.0, 0.0, 0.0, 0.0]


def test_masked_mean_against_loops() -> None:
    features = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]).view(2, 1, 2, 2)
    found = masked_mean(features, mask)
    for channel in range(3):
        inside = [float(features[0, channel, i // 2, i % 2]) for i in (0, 2, 3)]
        assert float(found[0, channel]) == pytest.approx(sum(inside) / 3, rel=1e-5)
    assert found[1].tolist() == [0.0, 0.0, 0.0]
    assert torch.allclose(masked_mean(features, torch.ones(2, 1, 2, 2)), features.mean((2, 3)))


def _trace_loops(anchor: Tensor, positives: Tensor, same: Tensor, negatives: Tensor, own: Tensor, t: float) -> float:
    terms = []
    for i, a in enumerate(anchor):
        likes = [math.exp(_dot(a, p) / t) for j, p in enumerate(positives) if not same[i, j]]
        if not likes:
            continue
        mean = sum(likes) / len(likes)
        rest = sum(math.exp(_dot(a, n) / t) for n in negatives) + math.exp(_dot(a, own[i]) / t)
        terms.append(-math.log(mean / (mean + rest)))
    return sum(terms) / len(terms)


def test_trace_contrast_against_loops() -> None:
    anchor, queue, negatives, own = _unit(4, 3), _unit(5, 3, seed=1), _unit(6, 3, seed=2), _unit(4, 3, seed=3)
    positives = torch.cat([anchor, queue])
    same = torch.zeros(4, 9, dtype=torch.bool).fill_diagonal_(True)
    found = trace_contrast(anchor, positives, same, negatives, own, 0.3)
    assert float(found) == pytest.approx(_trace_loops(anchor, positives, same, negatives, own, 0.3))
    same[1] = True  # this anchor has no positive: it does not count
    found = trace_contrast(anchor, positives, same, negatives, own, 0.3)
    assert float(found) == pytest.approx(_trace_loops(anchor, positives, same, negatives, own, 0.3))


def test_trace_contrast_by_hand() -> None:
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    same = torch.tensor([[False]])
    # positive at cosine 1, own trace-less feature at 0, no real face: -log(e / (e + 1))
    assert float(trace_contrast(x, x, same, y[:0], y, 1.0)) == pytest.approx(math.log(1 + math.exp(-1)))
    assert float(trace_contrast(x, x, same, y, y, 1.0)) == pytest.approx(math.log(1 + 2 * math.exp(-1)))


def test_trace_contrast_leaves_the_own_face_out() -> None:
    anchor, negatives = _unit(2, 3), _unit(4, 3, seed=1)
    same = torch.eye(2, dtype=torch.bool)
    first = trace_contrast(anchor, anchor, same, negatives, negatives[:2], 0.5)
    replaced = torch.stack([-anchor[0], anchor[1]])  # what stands in the own place of the first is never looked at
    only = torch.tensor([[True, False]])
    a = trace_contrast(anchor[:1], anchor, only, negatives, negatives[:1], 0.5)
    b = trace_contrast(anchor[:1], replaced, only, negatives, negatives[:1], 0.5)
    assert float(a) == float(b)
    assert float(first) != pytest.approx(float(trace_contrast(anchor, anchor, ~same, negatives, negatives[:2], 0.5)))
    none = trace_contrast(anchor, anchor, torch.ones(2, 2, dtype=torch.bool), negatives, negatives[:2], 0.5)
    assert float(none) == 0.0


def test_trace_contrast_does_not_depend_on_how_often_the_queue_holds_its_positives() -> None:
    anchor, queue, negatives, own = _unit(3, 3), _unit(4, 3, seed=1), _unit(6, 3, seed=2), _unit(3, 3, seed=3)
    once = trace_contrast(anchor, queue, torch.zeros(3, 4, dtype=torch.bool), negatives, own, 0.2)
    thrice = trace_contrast(anchor, queue.repeat(3, 1), torch.zeros(3, 12, dtype=torch.bool), negatives, own, 0.2)
    assert float(once) == pytest.approx(float(thrice))


# mixture of experts -----------------------------------------------------------------------------------------------


def test_mixture_against_loops() -> None:
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    weights = torch.softmax(torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=1)
    found, shares = mixture(z, weights.log())
    for face in range(6):
        parts = [float(w) / (1 + math.exp(-float(v))) for w, v in zip(weights[face], z[face], strict=True)]
        p = sum(parts)
        assert float(found[face]) == pytest.approx(math.log(p / (1 - p)))
        assert shares[face].tolist() == pytest.approx([part / p for part in parts])


def test_mixture_by_hand_and_in_its_limits() -> None:
    even = torch.tensor([[0.5, 0.5]]).log()
    # one expert sure, the other sure of the opposite: p = 1/2; both at 3/4: p = 3/4
    assert float(mixture(torch.tensor([[30.0, -30.0]]), even)[0]) == pytest.approx(0.0, abs=1e-5)
    assert float(mixture(torch.full((1, 2), math.log(3.0)), even)[0]) == pytest.approx(math.log(3.0), rel=1e-5)
    # an expert without any weight is not heard, however sure; the logit of one alone is its own, however large
    alone, shares = mixture(torch.tensor([[80.0, -2.0]]), torch.tensor([[-math.inf, 0.0]]))
    assert float(alone) == pytest.approx(-2.0, rel=1e-5)
    assert shares.tolist() == [[0.0, 1.0]]
    assert float(mixture(torch.tensor([[-90.0]]), torch.zeros(1, 1))[0]) == pytest.approx(-90.0)


def test_odds_mixture_against_loops() -> None:
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    weights = torch.softmax(torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=1)
    for lapse in (1e-30, 0.1, 2.0):
        found, shares = odds_mixture(z, weights.log(), lapse)
        for face in range(6):
            p = [1 / (1 + math.exp(-float(v))) for v in z[face]]
            odds = [float(w) * q / (1 - q + lapse) for w, q in zip(weights[face], p, strict=True)]
            told = sum(odds) * (1 + lapse) / (1 + sum(odds))  # what an expert with these odds would say
            assert float(found[face]) == pytest.approx(math.log(told / (1 - told)))
            assert shares[face].tolist() == pytest.approx([part / sum(odds) for part in odds])


def test_odds_mixture_by_hand_and_in_its_limits() -> None:
    # one of two experts sure, the other sure of the opposite: odds (10 + 0) / 2 = 5, p = 5 * 1.1 / 6
    even = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    against = torch.tensor([[40.0, -40.0]], dtype=torch.float64)
    told = 5.5 / 6
    assert float(odds_mixture(against, even, 0.1)[0]) == pytest.approx(math.log(told / (1 - told)))
    # without a lapse one sure expert decides, with a large one the mean does
    assert float(odds_mixture(against, even, 1e-30)[0]) == pytest.approx(40.0 + math.log(0.5))
    assert float(odds_mixture(against, even, 1e9)[0]) == pytest.approx(float(mixture(against, even)[0]), abs=1e-6)
    # experts that agree are not changed, one alone keeps its logit, however large
    assert float(odds_mixture(torch.full((1, 2), 1.5), even, 0.1)[0]) == pytest.approx(1.5, rel=1e-5)
    for z in (-60.0, -3.0, 0.0, 3.0, 60.0):
        assert float(odds_mixture(torch.tensor([[z]]), torch.zeros(1, 1), 0.1)[0]) == pytest.approx(z, abs=1e-5)
    alone, shares = odds_mixture(torch.tensor([[80.0, -2.0]]), torch.tensor([[-math.inf, 0.0]]), 0.1)
    assert float(alone) == pytest.approx(-2.0, rel=1e-5)
    assert shares.tolist() == [[0.0, 1.0]]


# masks --------------------------------------------------------------------------------------------------------------


def test_mask_evidence_against_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    evidence = torch.randn(3, 1, 2, 2, generator=generator)
    mask = (torch.rand(3, 1, 6, 6, generator=generator) > 0.4).float()
    known = torch.tensor([True, False, True])
    total, count = 0.0, 0
    for face in (0, 2):
        for row in range(2):
            for column in range(2):
                block = [float(mask[face, 0, 3 * row + r, 3 * column + c]) for r in range(3) for c in range(3)]
                share, p = sum(block) / 9, 1 / (1 + math.exp(-float(evidence[face, 0, row, column])))
                total -= share * math.log(p) + (1 - share) * math.log(1 - p)
                count += 1
    assert float(mask_evidence(evidence, mask, known)) == pytest.approx(total / count, rel=1e-5)


def test_mask_evidence_limits() -> None:
    evidence, mask = torch.full((2, 1, 2, 2), -40.0, requires_grad=True), torch.zeros(2, 1, 4, 4)
    nothing = mask_evidence(evidence, mask, torch.tensor([False, False]))
    assert float(nothing) == 0.0
    nothing.backward()  # type: ignore[no-untyped-call]  # still part of the graph
    assert evidence.grad is not None
    assert float(evidence.grad.abs().sum()) == 0.0
    assert float(mask_evidence(evidence, mask, torch.tensor([True, True]))) == pytest.approx(0.0, abs=1e-9)
    assert float(mask_evidence(evidence, mask + 1, torch.tensor([True, True]))) == pytest.approx(40.0)


def test_decoupling_of_features_that_do_not_vary_pulls_at_nothing() -> None:
    """One real and one forged face: without their class means nothing is left, and nothing must become NaN."""
    common = torch.tensor([[1.0, 2.0], [0.5, -1.0]], requires_grad=True)
    special = torch.tensor([[0.3, 0.1], [2.0, 1.0]], requires_grad=True)
    loss = decoupling(common, special, torch.tensor([0, 1]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss) == 0.0
    for feature in (common, special):
        assert feature.grad is not None
        assert feature.grad.tolist() == [[0.0, 0.0], [0.0, 0.0]]
