"""The losses of cored, dfil, hdp and sur_lid against loops over single faces, and against cases worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.dataset import train_batch
from ffd_continual.strategies.field_losses import (
    as_shown,
    bin_means,
    confidence_bin,
    feature_distillation,
    logit_distillation,
    representation_pull,
    supervised_contrast,
)
from ffd_continual.strategies.training.plan import StepPlan


def _softmax(z: float, temperature: float) -> list[float]:
    first, second = math.exp(0.0), math.exp(z / temperature)
    return [first / (first + second), second / (first + second)]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 20.0])
def test_logit_distillation_is_the_scaled_divergence_of_both_softmaxes(temperature: float) -> None:
    rng = np.random.default_rng(0)
    new, old = rng.normal(0, 3, 7), rng.normal(0, 3, 7)
    total = 0.0
    for a, b in zip(new, old, strict=True):
        for p, q in zip(_softmax(b, temperature), _softmax(a, temperature), strict=True):
            total += p * math.log(p / q)
    expected = temperature**2 * total / 7
    assert float(logit_distillation(torch.tensor(new), torch.tensor(old), temperature)) == pytest.approx(expected)


def test_logit_distillation_by_hand_and_at_its_limits() -> None:
    # old 0 gives (1/2, 1/2), new ln 3 gives (1/4, 3/4): KL = 1/2 ln 2 + 1/2 ln (2/3) = 1/2 ln (4/3) = 0.14384.
    found = logit_distillation(torch.tensor([math.log(3.0)]), torch.tensor([0.0]), 1.0)
    assert float(found) == pytest.approx(0.14384, abs=1e-5)
    z = torch.randn(5, dtype=torch.float64, requires_grad=True)
    same = logit_distillation(z, z.detach(), 3.0)
    same.backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert float(same.detach()) == pytest.approx(0.0, abs=1e-12)
    assert float(z.grad.abs().max()) < 1e-12
    assert float(logit_distillation(torch.zeros(0), torch.zeros(0), 2.0)) == 0.0
    # T^2 KL tends to (new - old)^2 / 8 as T grows.
    a, b = torch.tensor([0.7, -1.0], dtype=torch.float64), torch.tensor([0.1, 0.4], dtype=torch.float64)
    assert float(logit_distillation(a, b, 500.0)) == pytest.approx(float(((a - b) ** 2).mean() / 8), rel=1e-3)


def _contrast(features: Any, groups: Any, temperature: float, more: Any, more_groups: Any) -> float:
    points = [(np.array(f) / np.linalg.norm(f), g) for f, g in zip(features, groups, strict=True)]
    others = points + [(np.array(f) / np.linalg.norm(f), g) for f, g in zip(more, more_groups, strict=True)]
    losses = []
    for i, (anchor, group) in enumerate(points):
        bottom = sum(math.exp(anchor @ x / temperature) for j, (x, _) in enumerate(others) if j != i)
        shares = [
            math.log(math.exp(anchor @ x / temperature) / bottom)
            for j, (x, g) in enumerate(others)
            if j != i and g == group
        ]
        if shares:
            losses.append(-sum(shares) / len(shares))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("extra", [0, 4])
def test_supervised_contrast_is_the_mean_over_anchors_and_positives(extra: int) -> None:
    rng = np.random.default_rng(1)
    features, groups = rng.normal(size=(9, 5)), [0, 1, 1, 2, 0, 0, 3, 1, 2]
    more, more_groups = rng.normal(size=(extra, 5)), [3, 0, 4, 3][:extra]
    given = (torch.tensor(more), torch.tensor(more_groups)) if extra else (None, None)
    found = supervised_contrast(torch.tensor(features), torch.tensor(groups), 0.3, *given)
    assert float(found) == pytest.approx(_contrast(features, groups, 0.3, more, more_groups))


def test_supervised_contrast_by_hand() -> None:
    # Two alike faces of group 0 and one at a right angle, T = 1: each anchor gives -ln(e / (e + 1)) = 0.31326; the
    # third is alone in its group and does not count. Lengths do not matter.
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]], requires_grad=True)
    found = supervised_contrast(features, torch.tensor([0, 0, 1]), 1.0)
    assert float(found.detach()) == pytest.approx(0.31326, abs=1e-5)
    alone = supervised_contrast(features, torch.tensor([0, 1, 2]), 1.0)
    alone.backward()  # type: ignore[no-untyped-call]
    assert float(alone.detach()) == 0.0
    assert features.grad is not None
    assert bool((features.grad == 0).all())


def test_confidence_bins_by_hand() -> None:
    # p of the own label: 0.5, 0.59, 0.61, 0.99, 1.0, and 0.49 that is taken for the other label; five bins of 0.1.
    own = torch.tensor([0.5, 0.59, 0.61, 0.99, 1.0, 0.49], dtype=torch.float64)
    z = torch.log(own / (1 - own))
    assert confidence_bin(z, torch.ones(6, dtype=torch.long), 5).tolist() == [0, 0, 1, 4, 4, -1]
    assert confidence_bin(-z, torch.zeros(6, dtype=torch.long), 5).tolist() == [0, 0, 1, 4, 4, -1]


def test_bin_means_and_the_pull_to_them_follow_a_loop() -> None:
    rng = np.random.default_rng(2)
    features, labels = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    places = rng.integers(-1, 3, 40)
    places[labels == 1] = np.where(places[labels == 1] == 2, 0, places[labels == 1])  # one cell stays empty
    means, counts = bin_means(torch.tensor(features), torch.tensor(labels), torch.tensor(places), 3)
    for label in range(2):
        for place in range(3):
            inside = [f for f, x, p in zip(features, labels, places, strict=True) if x == label and p == place]
            assert int(counts[label, place]) == len(inside)
            mean = sum(inside) / len(inside) if inside else np.zeros(3)
            assert np.allclose(means[label, place].numpy(), mean)
    assert int(counts[1, 2]) == 0

    new, new_labels, new_places = rng.normal(size=(8, 3)), [0, 1, 0, 1, 1, 0, 0, 1], [0, 2, -1, 0, 1, 2, 1, -1]
    squares = []
    for face, label, place in zip(new, new_labels, new_places, strict=True):
        if place >= 0 and not (label == 1 and place == 2):
            squares.append(((face - means[label, place].numpy()) ** 2).mean())
    found = representation_pull(torch.tensor(new), torch.tensor(new_labels), torch.tensor(new_places), means, counts)
    assert float(found) == pytest.approx(sum(squares) / len(squares))
    nowhere = representation_pull(torch.tensor(new), torch.tensor(new_labels), torch.full((8,), -1), means, counts)
    assert float(nowhere) == 0.0


def test_feature_distillation_of_nothing_is_nothing() -> None:
    assert float(feature_distillation(torch.zeros(0, 4), torch.zeros(0, 4))) == 0.0
    assert float(feature_distillation(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 2.0]]))) == 2.0  # (4 + 0) / 2


@pytest.mark.parametrize(("learner", "settings"), [("plain", {"pseudo": 0.5}), ("iin", {"pretext": 0.5})])
def test_self_blended_faces_count_as_shown(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, learner: str, settings: dict[str, Any]
) -> None:
    """What `as_shown` says of a batch is what the learner's own step shows to its network."""
    parts = workshop.parts(learner, "naive", learn=settings)[1]
    plan = StepPlan(parts.keeper, parts.sources, 0, 8, 0, 1)
    batch = train_batch(parts.sources, next(iter(plan)))
    calls: list[Batch] = []
    given = Batch.with_pseudo

    def spy(self: Batch, share: float) -> tuple[Batch, torch.Tensor]:
        calls.append(given(self, share)[0])
        return given(self, share)

    parts.learner.begin("alpha")
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(Batch, "with_pseudo", spy)
        parts.learner.step(batch)
    shown = as_shown(parts.learner, batch)
    assert len(calls) == 1
    assert int((shown.target != batch.target).sum()) == 2  # half of four real faces
    assert torch.equal(calls[0].target, shown.target)
    assert torch.equal(calls[0].image, shown.image)
    assert as_shown(workshop.parts(learner, "naive", learn=dict.fromkeys(settings, 0.0))[1].learner, batch) is batch
