"""IIN's evidence of a closed module: the discriminant against loops, its limits, and that it is never forgotten."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ffd_continual.strategies.learners.local_evidence import (
    EXTRA,
    SHRINK,
    LocalEvidence,
    LocationSums,
    location_features,
    mixed_evidence,
    places,
)

LOW, HIGH, SIDE = 3, 2, 4


def _faces(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Frozen maps, own maps, logits, and masks that follow the first channel."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.randn(count, LOW, SIDE, SIDE, generator=generator)
    high = torch.randn(count, HIGH, SIDE // 2, SIDE // 2, generator=generator)
    z = torch.randn(count, generator=generator)
    mask = (low[:, :1] + 0.3 * torch.randn(count, 1, SIDE, SIDE, generator=generator) > 0.5).float()
    mask[::2] = 0.0  # every other face is real
    return low, high, z, mask.repeat_interleave(2, 2).repeat_interleave(2, 3)


def _learnt(count: int = 40) -> LocalEvidence:
    low, high, z, mask = _faces(count)
    sums = LocationSums(LOW + HIGH + EXTRA, low.device)
    for at in range(0, count, 7):  # in parts, as faces come
        part = slice(at, at + 7)
        sums.add(location_features(low[part], high[part], z[part]), mask[part])
    evidence = LocalEvidence(LOW + HIGH + EXTRA)
    evidence.learn(sums)
    return evidence


def _by_loops(count: int) -> tuple[np.ndarray[Any, Any], float]:
    """Class means and the pooled covariance, location by location."""
    low, high, z, mask = (t.double().numpy() for t in _faces(count))
    rows, shares = [], []
    for b in range(count):
        for h in range(SIDE):
            for w in range(SIDE):
                where = []
                for i in range(4):
                    for j in range(4):
                        if i or j:
                            y, x = (h + 0.5) / SIDE, (w + 0.5) / SIDE
                            where.append(math.cos(math.pi * i * y) * math.cos(math.pi * j * x))
                rows.append([*low[b, :, h, w], *high[b, :, h // 2, w // 2], *where, z[b]])
                shares.append(float((mask[b, 0, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2] > 0).mean()))
    features, share = np.array(rows), np.array(shares)
    forged = sum(s * f for s, f in zip(share, features, strict=True)) / share.sum()
    real = sum((1 - s) * f for s, f in zip(share, features, strict=True)) / (1 - share).sum()
    covariance = np.zeros((features.shape[1], features.shape[1]))
    for s, f in zip(share, features, strict=True):
        covariance += s * np.outer(f - forged, f - forged) + (1 - s) * np.outer(f - real, f - real)
    covariance /= len(features)
    covariance = (1 - SHRINK) * covariance + SHRINK * np.diag(np.diag(covariance))
    weight = np.linalg.inv(covariance) @ (forged - real)
    return weight, math.log(share.sum() / (1 - share).sum()) - 0.5 * float((forged + real) @ weight)


def test_the_discriminant_is_that_of_loops() -> None:
    evidence, (weight, bias) = _learnt(), _by_loops(40)
    np.testing.assert_allclose(evidence.weight.numpy(), weight, rtol=1e-3, atol=1e-4)
    assert float(evidence.bias) == pytest.approx(bias, abs=1e-3)


def test_it_reads_what_it_has_learnt_from() -> None:
    evidence = _learnt()
    low, high, z, mask = _faces(30, seed=1)
    told = evidence(low, high, z)
    by_features = torch.einsum("brhw,r->bhw", location_features(low, high, z), evidence.weight) + evidence.bias
    torch.testing.assert_close(told, by_features, rtol=1e-4, atol=1e-4)
    small = torch.nn.functional.adaptive_avg_pool2d(mask, (SIDE, SIDE))[:, 0]
    assert float(told[1::2][small[1::2] == 1].mean()) > float(told[1::2][small[1::2] == 0].mean()) + 2.0


def test_places_are_cosines_without_the_constant_one() -> None:
    found = places(2, 4)
    assert found.shape == (15, 2, 4)
    assert float(found[0, 0, 1]) == pytest.approx(math.cos(math.pi * 0.375))  # i 0, j 1
    assert float(found[3, 1, 0]) == pytest.approx(math.cos(math.pi * 0.75))  # i 1, j 0
    torch.testing.assert_close(places(64, 64).mean((1, 2)), torch.zeros(15), atol=1e-5, rtol=0)


def test_without_masks_of_both_kinds_it_has_no_say() -> None:
    low, high, z, mask = _faces(4)
    sums, evidence = LocationSums(LOW + HIGH + EXTRA, low.device), LocalEvidence(LOW + HIGH + EXTRA)
    evidence.learn(sums)
    sums.add(location_features(low, high, z), mask * 0)
    evidence.learn(sums)
    assert not bool(evidence.met)
    assert bool(evidence(low, high, z).isnan().all())


def test_modules_are_mixed_by_their_share_of_the_decision() -> None:
    each = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(3))
    each[1, 2] = float("nan")
    common = torch.full((2, 1, 2, 2), 0.7)
    share = torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.6, 0.4]])
    found = mixed_evidence(each, share, common)
    assert found.shape == (2, 1, 2, 2)
    for b in range(2):
        for h in range(2):
            for w in range(2):
                p = 0.0
                for k in range(3):
                    e = float(each[b, k, h, w])
                    p += float(share[b, k]) / (1 + math.exp(-(0.7 if math.isnan(e) else e)))
                assert float(torch.sigmoid(found[b, 0, h, w])) == pytest.approx(p, abs=1e-6)


def test_the_map_of_a_decision_is_that_of_the_modules(workshop: Any) -> None:
    run = workshop.train("iin", "iin", experiences=2)
    learner = run.parts.learner.eval()
    rows = run.parts.scenario.index("test", "alpha")
    with torch.no_grad():
        frozen = learner.seen(next(run.agent.faces(rows)))
        out, common = learner.judge(frozen), learner.judge_common(frozen).maps["trace"]
        _, each = learner.special(learner._split(frozen)[1])
        assert out.attribution is not None
        torch.testing.assert_close(out.maps["trace"], mixed_evidence(each, out.attribution, common))
        for module in learner.intra:  # without a say, the common path's
            module.evidence.met.fill_(False)
        torch.testing.assert_close(learner.judge(frozen).maps["trace"], common, atol=1e-5, rtol=1e-5)
