from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute, as_taskaware_classification_dataset
from avalanche.training import Naive
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor
from torch.utils.data import TensorDataset

from ffd_continual.replay.memory import Budget, ExemplarMemory
from ffd_continual.replay.storage import ExemplarStorage
from ffd_continual.scenarios.errors import FFDError


def dataset(first: int, count: int = 24) -> Any:
    """Features carry their row in column 0, so that a replayed sample can be recognised."""
    rows = torch.arange(first, first + count, dtype=torch.float32)
    inputs = torch.stack([rows, torch.randn(count, generator=torch.Generator().manual_seed(first))], dim=1)
    targets = [index % 2 for index in range(count)]
    data = AvalancheDataset(
        [TensorDataset(inputs, torch.tensor(targets))],
        data_attributes=[
            DataAttribute(targets, "targets"),
            DataAttribute([0] * count, "targets_task_labels", use_in_getitem=True),
        ],
    )
    return as_taskaware_classification_dataset(data)


class Recorder(torch.nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 2)
        self.rows: set[int] = set()

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.rows |= {int(row) for row in inputs[:, 0]}
        return super().forward(inputs / 100)


def stored_rows(storage: ExemplarStorage) -> list[int]:
    return sorted(int(sample[0][0]) for sample in storage.buffer)


def test_stock_replay_trains_from_the_memory() -> None:
    torch.manual_seed(0)
    streams = benchmark_from_datasets(train=[dataset(0), dataset(24)], test=[dataset(0), dataset(24)])
    storage = ExemplarStorage(ExemplarMemory(Budget(items=8)), seed=3)
    model = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strategy = Naive(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
            criterion=torch.nn.CrossEntropyLoss(),
            train_mb_size=6,
            plugins=[ReplayPlugin(mem_size=8, storage_policy=storage)],
            evaluator=None,
        )
    assert len(storage.buffer) == 0
    strategy.train(streams.train_stream[0])
    remembered = stored_rows(storage)
    assert remembered == sorted(storage.memory.table.row.tolist())
    assert len(remembered) == 8
    assert set(remembered) <= set(range(24))

    model.rows.clear()
    strategy.train(streams.train_stream[1])
    assert model.rows == set(range(24, 48)) | set(remembered), "only current and remembered faces are trained on"
    counts = storage.memory.counts()
    assert list(counts.values()) == [2, 2, 2, 2]
    targets = [int(target) for target in storage.buffer.targets]
    assert targets == [int(sample[0][0]) % 2 for sample in storage.buffer]

    storage.resize(strategy, 4)
    assert storage.max_size == len(storage.buffer) == 4
    storage.resize(strategy, 0)
    assert len(storage.buffer) == 0


class Experience:
    def __init__(self, number: int) -> None:
        self.current_experience = number
        self.dataset = dataset(24 * number)


def test_state_is_restored_once_the_data_are_attached() -> None:
    first = ExemplarStorage(ExemplarMemory(Budget(items=6)))
    experiences = [Experience(number) for number in range(3)]
    for experience in experiences[:2]:
        first.post_adapt(None, experience)
    second = ExemplarStorage(ExemplarMemory(Budget(items=99)))
    second.load_state_dict(first.state_dict())
    assert second.max_size == 6
    with pytest.raises(FFDError, match="call attach"):
        len(second.buffer)
    for experience in experiences[:2]:
        start = 24 * experience.current_experience
        second.attach(experience.dataset, np.arange(start, start + 24))
    assert stored_rows(second) == stored_rows(first)
    for storage in (first, second):
        storage.post_adapt(None, experiences[2])
    assert stored_rows(second) == stored_rows(first)
    assert max(stored_rows(first)) >= 48


def test_another_seed_keeps_other_faces() -> None:
    kept = []
    for seed in (0, 0, 1):
        storage = ExemplarStorage(ExemplarMemory(Budget(items=6)), seed=seed)
        storage.post_adapt(None, Experience(0))
        kept.append(stored_rows(storage))
    assert kept[0] == kept[1] != kept[2]


def test_misuse_is_explained() -> None:
    with pytest.raises(FFDError, match=r"Budget\(items"):
        ExemplarStorage(ExemplarMemory(Budget(nbytes=10)))
    storage = ExemplarStorage(ExemplarMemory(Budget(items=6)))
    with pytest.raises(FFDError, match="3 rows for a data set of 24"):
        storage.attach(dataset(0), np.arange(3))
