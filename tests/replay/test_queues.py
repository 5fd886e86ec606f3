from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ffd_continual.replay.prototypes import Prototypes
from ffd_continual.replay.queues import AdmitAll, ClassQueues, FeatureQueue, HardSample

Batch = tuple[Tensor, Tensor, Tensor]


def slow_ring(capacity: int, batches: list[Batch]) -> tuple[dict[int, tuple[Tensor, int]], int, int]:
    slots: dict[int, tuple[Tensor, int]] = {}
    head, admitted = 0, 0
    for features, rows, admit in batches:
        for feature, row, ok in zip(features, rows, admit, strict=True):
            if ok:
                slots[head] = (feature, int(row))
                head, admitted = (head + 1) % capacity, admitted + 1
    return slots, head, admitted


@pytest.mark.parametrize("capacity", [1, 3, 7, 64])
def test_ring_equals_feeding_one_by_one(capacity: int) -> None:
    generator = torch.Generator().manual_seed(capacity)
    queue, row = FeatureQueue(capacity, 4), 0
    batches: list[Batch] = []
    for size in (2, 0, 5, 19, 1, 7):
        features = torch.randn(size, 4, generator=generator)
        rows = torch.arange(row, row + size)
        admit = torch.rand(size, generator=generator) > 0.3
        row += size
        batches.append((features, rows, admit))
        queue.enqueue(features, rows, admit)
        slots, head, admitted = slow_ring(capacity, batches)
        assert len(queue) == len(slots)
        assert int(queue.head) == head
        kept, kept_rows = queue.filled()
        for slot, (feature, expected_row) in slots.items():
            assert torch.equal(kept[slot], feature)
            assert int(kept_rows[slot]) == expected_row
        assert int(queue.offered) == row
        assert int(queue.admitted) == admitted
    assert queue.admission_rate() == pytest.approx(admitted / row)


def test_state_travels_and_continues_identically() -> None:
    first, second = FeatureQueue(5, 3), FeatureQueue(5, 3)
    generator = torch.Generator().manual_seed(0)
    first.enqueue(torch.randn(7, 3, generator=generator), torch.arange(7))
    second.load_state_dict(first.state_dict())
    more = torch.randn(3, 3, generator=generator)
    first.enqueue(more, torch.arange(3))
    second.enqueue(more, torch.arange(3))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_stored_features_are_detached_float32_copies() -> None:
    queue = FeatureQueue(4, 2)
    batch = torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True)
    queue.enqueue(batch)
    features, rows = queue.filled()
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert features.data_ptr() == queue.features.data_ptr(), "filled() must be a view, not a copy"
    assert rows.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("features", "rows", "admit"),
    [
        (torch.zeros(2, 5), None, None),
        (torch.zeros(3), None, None),
        (torch.zeros(2, 3), torch.zeros(3), None),
        (torch.zeros(2, 3), None, torch.ones(1, dtype=torch.bool)),
    ],
)
def test_wrong_shapes_are_refused_and_leave_the_queue_alone(
    features: Tensor, rows: Tensor | None, admit: Tensor | None
) -> None:
    queue = FeatureQueue(4, 3)
    with pytest.raises(ValueError, match="must be"):
        queue.enqueue(features, rows, admit)
    assert int(queue.offered) == 0


def test_hard_sample_is_the_cosine_to_the_other_prototype() -> None:
    prototypes = Prototypes(2, ["real", "forged"])
    prototypes.update(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))
    keys = torch.tensor([[1.0, 0.1], [0.1, 5.0], [1.0, 0.1], [0.1, 5.0]])
    classes = torch.tensor([0, 0, 1, 1])
    # A real key must look forged, a forged key must look real.
    assert HardSample(0.5)(keys, classes, prototypes).tolist() == [False, True, True, False]
    assert HardSample(-1.1)(keys, classes, prototypes).all()
    assert not HardSample(1.0)(keys, classes, prototypes).any()
    assert AdmitAll()(keys, classes, prototypes).all()


def test_hard_sample_admits_all_until_a_rival_prototype_exists() -> None:
    prototypes = Prototypes(2, ["real", "forged"])
    prototypes.update(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    keys, classes = torch.tensor([[-1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1])
    assert HardSample(0.5)(keys, classes, prototypes).tolist() == [True, False]


def test_class_queues_keep_classes_apart_and_update_prototypes_before_admission() -> None:
    queues = ClassQueues(10, 2, rule=HardSample(0.5))
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.2]])
    admitted = queues.enqueue(keys, torch.tensor([0, 1, 1]), torch.tensor([10, 11, 12]))
    # Mean of the forged unit keys = (.49, .598): cosine to the real key .63; the real prototype is the real key itself.
    assert admitted.tolist() == [True, False, True]
    assert queues[0].filled()[1].tolist() == [10]
    assert queues[1].filled()[1].tolist() == [12]
    assert queues.others(0)[1].tolist() == [12]
    assert queues.admission_rates() == {"real": 1.0, "forged": 0.5}


def test_others_joins_all_rival_classes() -> None:
    queues = ClassQueues(4, 2, classes=("real", "swap", "warp"))
    queues.enqueue(torch.eye(3)[:, :2] + 1, torch.tensor([0, 1, 2]), torch.tensor([5, 6, 7]))
    assert queues.others(1)[1].tolist() == [5, 7]
    with pytest.raises(IndexError, match="class id 3"):
        queues.enqueue(torch.ones(1, 2), torch.tensor([3]))


def test_enqueue_before_backward_is_reported_by_autograd() -> None:
    queue = FeatureQueue(4, 2)
    queue.enqueue(torch.ones(4, 2))
    query = torch.ones(1, 2, requires_grad=True)
    loss = (query @ queue.filled()[0].T).sum()
    queue.enqueue(torch.zeros(1, 2))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]
