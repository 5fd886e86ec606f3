"""From rows to Avalanche: single faces, as datasets of the streams train, valid, test and unseen."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute, as_taskaware_classification_dataset
from torch.utils.data import Dataset

from ffd_continual.scenarios.dataset import Rows, Sources, plain_batch
from ffd_continual.scenarios.streams import STREAMS, Scenario


class FaceDataset(Dataset[tuple[torch.Tensor, ...]]):
    """Faces one by one, without views, as Avalanche wants them: (image, target, forgery, experience, row)."""

    def __init__(self, sources: Sources, rows: Rows):
        self.sources, self.rows = sources, rows
        self.targets = (sources.forgery[rows] > 0).astype(int).tolist()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        batch = plain_batch(self.sources, [int(self.rows[index])])
        return batch.image[0], batch.target[0], batch.forgery[0], batch.experience[0], batch.row[0]


def avalanche_dataset(sources: Sources, rows: Rows) -> AvalancheDataset[Any]:
    """Rows as an AvalancheDataset with targets, the constant task label 0 and the attribute `face_rows`."""
    data = FaceDataset(sources, rows)
    attributes = [
        DataAttribute(data.targets, "targets"),
        DataAttribute(rows.tolist(), "face_rows"),
        DataAttribute([0] * len(rows), "targets_task_labels", use_in_getitem=True),
    ]
    return as_taskaware_classification_dataset(AvalancheDataset([data], data_attributes=attributes))


def make_benchmark(scenario: Scenario, sources: Sources) -> Any:
    """An Avalanche benchmark with streams train, valid, test and (when there are any) unseen."""
    streams = {}
    for stream in STREAMS:
        names = scenario.unseen if stream == "unseen" else scenario.experiences
        if names:
            streams[stream] = [avalanche_dataset(sources, scenario.index(stream, name)) for name in names]
    return benchmark_from_datasets(**streams)
