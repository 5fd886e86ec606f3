from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from ffd_continual.replay.prototypes import UNKNOWN, Prototypes


def slow_average(batches: Sequence[Sequence[tuple[float, float]]], momentum: float) -> list[float]:
    """DCL Eq. 4 on unit features, a batch as its mean, started by the first batch."""
    average: list[float] = []
    for batch in batches:
        mean = [0.0, 0.0]
        for x, y in batch:
            length = math.hypot(x, y)
            mean = [mean[0] + x / length / len(batch), mean[1] + y / length / len(batch)]
        if not average:
            average = mean
        else:
            average = [momentum * a + (1 - momentum) * m for a, m in zip(average, mean, strict=True)]
    return average


def test_update_is_the_moving_average_of_unit_features() -> None:
    batches = [[(3.0, 0.0), (0.0, 0.5)], [(-1.0, 2.0)], [(4.0, 4.0), (1.0, 0.1), (0.2, 1.0)]]
    prototypes = Prototypes(2, ["real"], momentum=0.9)
    for batch in batches:
        prototypes.update(torch.tensor(batch), torch.zeros(len(batch), dtype=torch.int64))
    expected = torch.tensor(slow_average(batches, 0.9))
    torch.testing.assert_close(prototypes.vectors[0, 0], expected)
    assert int(prototypes.counts[0, 0]) == 6


def test_similarity_is_a_cosine_and_unknown_classes_are_never_nearest() -> None:
    prototypes = Prototypes(2, ["real", "swap"])
    assert prototypes.similarity(torch.ones(1, 2)).tolist() == [[UNKNOWN, UNKNOWN]]
    prototypes.update(torch.tensor([[5.0, 5.0]]), torch.tensor([1]))
    similarity = prototypes.similarity(torch.tensor([[1.0, 0.0], [-3.0, -3.0]]))
    torch.testing.assert_close(similarity, torch.tensor([[UNKNOWN, math.sqrt(0.5)], [UNKNOWN, -1.0]]))
    assert prototypes.known().tolist() == [False, True]


def test_similarity_has_gradients_in_features_only() -> None:
    prototypes = Prototypes(3, ["real"])
    prototypes.update(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0]))
    features = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    prototypes.similarity(features).sum().backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert float(features.grad.abs().sum()) > 0
    assert not any(True for _ in prototypes.parameters())


def test_growth_keeps_what_was_there() -> None:
    prototypes = Prototypes(2, ["real"])
    prototypes.update(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert prototypes.grow(["swap", "real", "warp"]) == [1, 0, 2]
    assert prototypes.names == ["real", "swap", "warp"]
    assert prototypes.vectors[0, 0].tolist() == [1.0, 0.0]
    assert prototypes.counts.tolist() == [[1], [0], [0]]


def test_state_loads_after_replayed_growth_and_refuses_other_names() -> None:
    saved = Prototypes(4, ["real"], per_class=2)
    saved.grow(["swap", "warp"])
    generator = torch.Generator().manual_seed(0)
    saved.update(torch.randn(20, 4, generator=generator), torch.arange(20) % 3)
    state = saved.state_dict()

    same = Prototypes(4, per_class=2)
    same.grow(saved.names)
    same.load_state_dict(state)
    features = torch.randn(5, 4, generator=generator)
    assert torch.equal(same.similarity(features), saved.similarity(features))

    for names in ([], ["real", "warp", "swap"], ["real", "swap", "morph"]):
        with pytest.raises(RuntimeError, match="under other names or in another order"):
            Prototypes(4, names, per_class=2).load_state_dict(state)


def test_several_prototypes_follow_the_modes_of_a_class() -> None:
    generator = torch.Generator().manual_seed(1)
    modes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    which = torch.arange(60) % 2
    faces = modes[which] + 0.05 * torch.randn(60, 3, generator=generator)
    prototypes = Prototypes(3, ["swap"], per_class=2)
    for part in faces.split(12):  # type: ignore[no-untyped-call]
        prototypes.update(part, torch.zeros(len(part), dtype=torch.int64))
    assert sorted(prototypes.counts[0].tolist()) == [30, 30]
    assert float(prototypes.similarity(modes).min()) > 0.99
    single = Prototypes(3, ["swap"])
    single.update(faces, torch.zeros(60, dtype=torch.int64))
    assert float(single.similarity(modes).max()) < 0.8


def test_equal_faces_fill_one_slot_only() -> None:
    prototypes = Prototypes(2, ["swap"], per_class=3)
    prototypes.update(torch.ones(5, 2), torch.zeros(5, dtype=torch.int64))
    assert prototypes.counts.tolist() == [[5, 0, 0]]


def test_refresh_replaces_by_the_mean_of_all_features() -> None:
    prototypes = Prototypes(2, ["real"])
    prototypes.update(torch.tensor([[-1.0, 0.0]]), torch.tensor([0]))
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    prototypes.refresh("real", features)
    torch.testing.assert_close(prototypes.vectors[0, 0], torch.tensor([0.5, 0.5]))
    prototypes.refresh("morph", features)
    assert prototypes.names == ["real", "morph"]
    assert prototypes.counts.tolist() == [[2], [2]]


def test_unknown_ids_and_shapes_are_refused() -> None:
    prototypes = Prototypes(2, ["real"])
    with pytest.raises(IndexError, match="class id 1 is unknown"):
        prototypes.update(torch.ones(1, 2), torch.tensor([1]))
    with pytest.raises(ValueError, match="need"):
        prototypes.update(torch.ones(1, 3), torch.tensor([0]))
