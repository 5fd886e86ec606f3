"""DCL's equations against loops over single numbers, a case by hand each, invariances and limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ffd_continual.replay.queues import AdmitAll, ClassQueues, HardSample
from ffd_continual.strategies.learners.dcl_losses import (
    balance,
    decision_loss,
    forged_parts,
    inter_loss,
    intra_forged_loss,
    intra_real_loss,
    stored_similarity,
)

TAU = 0.07
Rows = list[list[float]]


def dot(u: list[float], v: list[float]) -> float:
    return sum(a * b for a, b in zip(u, v, strict=True))


def delta(u: list[float], v: list[float]) -> float:
    return dot(u, v) / math.sqrt(dot(u, u) * dot(v, v))


def locations(maps: torch.Tensor) -> list[list[list[float]]]:
    """(B, C, H, W) as [face][location][channel]."""
    faces, channels, height, width = maps.shape
    return [
        [[float(maps[b, c, i, j]) for c in range(channels)] for i in range(height) for j in range(width)]
        for b in range(faces)
    ]


def slow_inter(q: Rows, k: Rows, y: list[int], real: Rows, forged: Rows, tau: float) -> float:
    total = 0.0
    for query, key, label in zip(q, k, y, strict=True):
        negatives = forged if label == 0 else real
        if negatives:
            own = math.exp(delta(query, key) / tau)
            total -= math.log(own / (own + sum(math.exp(delta(query, m) / tau) for m in negatives)))
    return total / len(q)


def pairs(parts: list[list[float]], tau: float, own: bool) -> float:
    numbered = list(enumerate(parts))
    return sum(math.exp(delta(a, b) / tau) for i, a in numbered for j, b in numbered if own or i != j)


def slow_intra_forged(maps: torch.Tensor, forged: torch.Tensor, tau: float, own: bool = True) -> float:
    found = []
    for face, marks in zip(locations(maps), forged.tolist(), strict=True):
        real_parts = [p for p, m in zip(face, marks, strict=True) if not m]
        forged_ones = [p for p, m in zip(face, marks, strict=True) if m]
        if len(real_parts) > (0 if own else 1) and forged_ones:
            alike = pairs(real_parts, tau, own)
            apart = sum(math.exp(delta(a, b) / tau) for a in forged_ones for b in real_parts)
            found.append(-math.log(alike / (alike + apart)))
    return sum(found) / len(found)


def slow_intra_real(maps: torch.Tensor, tau: float, own: bool = True) -> float:
    found = [-math.log(pairs(face, tau, own)) for face in locations(maps)]
    return sum(found) / len(found)


def unit(count: int, dim: int, seed: int) -> torch.Tensor:
    made = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(made, dim=1)


@pytest.mark.parametrize("tau", [TAU, 0.5])
def test_eq_3_equals_the_loop(tau: float) -> None:
    q, k, real, forged = 3 * unit(7, 5, 0), 2 * unit(7, 5, 1), unit(11, 5, 2), unit(4, 5, 3)
    y = torch.tensor([0, 1, 1, 0, 0, 1, 0])
    slow = slow_inter(q.tolist(), k.tolist(), y.tolist(), real.tolist(), forged.tolist(), tau)
    assert float(inter_loss(q, k, y, real, forged, tau)) == pytest.approx(slow, rel=1e-5)


def test_eq_3_by_hand() -> None:
    """tau 1; cosine to the own key 1, to the one stored forged key 0, to the one stored real key -1.

    A real query: -log(e / (e + 1)) = 0.3132617; a forged one: -log(e / (e + 1/e)) = 0.1269280; mean 0.2200948.
    """
    q = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    loss = inter_loss(q, q / 2, torch.tensor([0, 1]), torch.tensor([[-1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), tau=1.0)
    assert float(loss) == pytest.approx(0.2200948, abs=1e-6)


def test_eq_3_takes_the_queue_of_the_other_class_alone() -> None:
    q, k, y = unit(4, 6, 4), unit(4, 6, 5), torch.zeros(4, dtype=torch.int64)
    none, some, more = torch.zeros(0, 6), unit(5, 6, 6), unit(3, 6, 7)
    assert float(inter_loss(q, k, y, some, none, TAU)) == 0.0
    assert float(inter_loss(q, k, y, none, some, TAU)) == float(inter_loss(q, k, y, more, some, TAU)) > 0.0
    assert float(inter_loss(q, k, 1 - y, some, none, TAU)) == pytest.approx(float(inter_loss(q, k, y, none, some, TAU)))


def test_eq_3_does_not_see_lengths_or_the_order_of_keys() -> None:
    q, k, real, forged, y = unit(6, 4, 8), unit(6, 4, 9), unit(5, 4, 10), unit(5, 4, 11), torch.arange(6) % 2
    loss = float(inter_loss(q, k, y, real, forged, TAU))
    assert float(inter_loss(9 * q, 0.1 * k, y, real.flip(0), forged.flip(0), TAU)) == pytest.approx(loss, rel=1e-5)


def test_the_gradient_made_with_the_value_is_autograd_s() -> None:
    q, stored = unit(5, 6, 12).double(), unit(9, 6, 13).double()
    one, two = (q.clone().requires_grad_(True) for _ in range(2))
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    value = stored_similarity(one, stored, TAU)
    plain = (two @ stored.T / TAU).logsumexp(1)
    (value * weights).sum().backward()  # type: ignore[no-untyped-call]
    (plain * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(value, plain, atol=1e-12)
    assert one.grad is not None
    assert two.grad is not None
    assert torch.allclose(one.grad, two.grad, atol=1e-12)


def test_the_ring_may_be_written_to_before_the_backward_pass() -> None:
    q, stored = unit(5, 6, 14).requires_grad_(True), unit(9, 6, 15)
    before = torch.autograd.grad(inter_loss(q, q.detach(), torch.zeros(5), stored, stored, TAU), q)[0]
    loss = inter_loss(q, q.detach(), torch.zeros(5), stored, stored, TAU)
    stored.zero_()
    assert torch.equal(torch.autograd.grad(loss, q)[0], before)


@pytest.mark.parametrize("tau", [TAU, 0.6])
def test_eq_7_equals_the_loop(tau: float) -> None:
    maps = torch.randn(4, 3, 2, 3, generator=torch.Generator().manual_seed(1))
    forged = torch.tensor([[1, 0, 0, 1, 0, 0], [0] * 6, [1] * 6, [1, 1, 1, 1, 1, 0]]).bool()
    assert float(intra_forged_loss(maps, forged, tau)) == pytest.approx(slow_intra_forged(maps, forged, tau), rel=1e-4)
    assert float(intra_forged_loss(maps[1:3], forged[1:3], tau)) == 0.0
    assert float(intra_forged_loss(maps[:0], forged[:0], tau)) == 0.0


@pytest.mark.parametrize("tau", [TAU, 0.6])
def test_without_self_pairs_the_intra_losses_equal_the_loop(tau: float) -> None:
    maps = torch.randn(3, 3, 2, 3, generator=torch.Generator().manual_seed(8)).requires_grad_(True)
    forged = torch.tensor([[1, 0, 0, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 0, 1, 1, 0]]).bool()  # the second: one real
    losses = intra_forged_loss(maps, forged, tau, self_pairs=False), intra_real_loss(maps, tau, self_pairs=False)
    slow = slow_intra_forged(maps, forged, tau, own=False), slow_intra_real(maps, tau, own=False)
    assert [float(loss.detach()) for loss in losses] == pytest.approx(slow, rel=1e-4)
    assert bool(torch.isfinite(torch.autograd.grad(losses[0] + losses[1], maps)[0]).all())
    assert float(intra_forged_loss(maps[1:2], forged[1:2], tau, self_pairs=False)) == 0.0


def test_self_pairs_outweigh_the_rest_at_the_paper_s_temperature() -> None:
    """36 locations whose cosines are near 0.3: as printed, the gradient is a hundredth of that without self pairs."""
    shared = torch.randn(1, 64, 1, 1, generator=torch.Generator().manual_seed(9))
    own = torch.randn(1, 64, 6, 6, generator=torch.Generator().manual_seed(10))
    maps = (0.65 * shared + own).requires_grad_(True)
    norms = [float(torch.autograd.grad(intra_real_loss(maps, TAU, p), maps)[0].norm()) for p in (True, False)]
    assert norms[0] < 0.02 * norms[1]


def test_eq_7_by_hand() -> None:
    """Real parts (1, 0), (1, 0), forged part (0, 1), tau 1: 4 e against 2 e^0, log(1 + 2 / (4 e)) = 0.1688476."""
    maps = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 5.0]]).view(1, 2, 1, 3)
    loss = intra_forged_loss(maps, torch.tensor([[False, False, True]]), 1.0)
    assert float(loss) == pytest.approx(0.1688476, abs=1e-6)


def test_eq_7_draws_no_forged_parts_together() -> None:
    """Two forged parts at right angles to the real ones: whether they agree with each other changes nothing."""
    forged = torch.tensor([[False, True, True]])
    apart = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]).T.reshape(1, 3, 1, 3)
    alike = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]]).T.reshape(1, 3, 1, 3)
    assert float(intra_forged_loss(apart, forged, TAU)) == float(intra_forged_loss(alike, forged, TAU))
    near = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0]]).T.reshape(1, 3, 1, 3)
    assert float(intra_forged_loss(near, forged, TAU)) > float(intra_forged_loss(alike, forged, TAU))


def test_eq_8_equals_the_loop_and_has_its_least_at_one_direction() -> None:
    maps = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(2))
    assert float(intra_real_loss(maps, TAU)) == pytest.approx(slow_intra_real(maps, TAU), rel=1e-5)
    same = torch.ones(2, 4, 3, 3) * torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(3))
    least = -1 / TAU - 2 * math.log(9)  # every one of 81 pairs has cosine 1
    assert float(intra_real_loss(same, TAU)) == pytest.approx(least, abs=1e-4)
    nine = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(4))
    assert float(intra_real_loss(nine, TAU)) > least
    assert float(intra_real_loss(maps[:0], TAU)) == 0.0


def test_intra_losses_see_neither_lengths_nor_the_order_of_locations() -> None:
    maps = torch.randn(2, 3, 2, 3, generator=torch.Generator().manual_seed(5))
    forged = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 1, 1, 1, 0]]).bool()
    order = torch.tensor([4, 1, 5, 0, 3, 2])
    scaled = maps * (0.5 + torch.rand(2, 1, 2, 3, generator=torch.Generator().manual_seed(6)))
    moved = scaled.flatten(2)[:, :, order].view_as(maps)
    for loss, again in (
        (intra_forged_loss(maps, forged, TAU), intra_forged_loss(moved, forged[:, order], TAU)),
        (intra_real_loss(maps, TAU), intra_real_loss(moved, TAU)),
    ):
        assert float(again) == pytest.approx(float(loss), rel=1e-4)


def test_losses_stay_finite_where_raw_products_would_overflow() -> None:
    maps = 1e4 * torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(7))
    maps.requires_grad_(True)
    forged = torch.zeros(2, 9, dtype=torch.bool)
    forged[:, :4] = True
    loss = intra_real_loss(maps, TAU) + intra_forged_loss(maps, forged, TAU)
    assert math.isfinite(float(torch.autograd.grad(loss, maps)[0].abs().max()))
    assert -1 / TAU - 2 * math.log(9) <= float(intra_real_loss(maps.detach(), TAU)) < 1 / TAU


def test_masks_are_resized_by_their_share() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, 0, :3] = 1.0  # cells of 2 x 2: shares 2/4, 1/4, 0, 0
    assert forged_parts(mask, (2, 2), 0.25).tolist() == [[True, True, False, False]]
    assert forged_parts(mask, (2, 2), 0.5).tolist() == [[True, False, False, False]]
    assert forged_parts(mask, (2, 2), 0.51).tolist() == [[False] * 4]


def test_eq_2_with_its_sign() -> None:
    """y' = 0.8 for a forged and 0.4 for a real face: -(log 0.8 + log 0.6) / 2 = 0.3669846."""
    z = torch.tensor([math.log(0.8 / 0.2), math.log(0.4 / 0.6)])
    assert float(decision_loss(z, torch.tensor([1, 0]))) == pytest.approx(0.3669846, abs=1e-6)


def test_the_balance_warms_up_once() -> None:
    shown = [balance(p, True, 0.5, 0.1, 0.2) for p in (0.0, 0.19, 0.2, 0.9)]
    assert shown == [0.1, 0.1, 0.5, 0.5]
    assert balance(0.0, False, 0.5, 0.1, 0.2) == 0.5
    assert balance(0.0, True, 0.5, 0.1, 0.0) == 0.5


@pytest.mark.parametrize("hard", [True, False])
def test_eq_4_to_6_equal_feeding_by_the_paper(hard: bool) -> None:
    """Batches of unit keys: P <- 0.9 P + 0.1 mean key of the class, then those beyond theta of the other's P enter."""
    alpha, theta, dim = 0.9, 0.1, 4
    queues = ClassQueues(30, dim, ("real", "forged"), HardSample(theta) if hard else AdmitAll(), alpha)
    rng = np.random.default_rng(0)
    prototypes: dict[int, np.ndarray] = {}
    stored: dict[int, list[np.ndarray]] = {0: [], 1: []}
    for _ in range(6):
        keys = rng.normal(size=(5, dim))
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        labels = rng.permutation([0, 0, 1, 1, int(rng.integers(2))])
        for label in (0, 1):
            mean = sum(k for k, y in zip(keys, labels, strict=True) if y == label) / int((labels == label).sum())
            prototypes[label] = alpha * prototypes[label] + (1 - alpha) * mean if label in prototypes else mean
        for key, label in zip(keys, labels, strict=True):
            if not hard or delta(key.tolist(), prototypes[1 - label].tolist()) > theta:
                stored[label].append(key)
        queues.enqueue(torch.from_numpy(keys).float(), torch.from_numpy(labels))
    for label in (0, 1):
        assert np.allclose(queues[label].filled()[0].numpy(), np.stack(stored[label]), atol=1e-6)
    assert (len(stored[0]) + len(stored[1]) < 30) == hard
