"""Faces that several streams share are judged once, in validation and in test, and stand for each of their rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ffd_continual.measuring.calibration import Calibration
from ffd_continual.run import score_once
from ffd_continual.runs.assemble import Parts
from ffd_continual.runs.detector import Detector, calibrated
from ffd_continual.scenarios.batch import Batch
from ffd_continual.strategies.learner import Learner, Output
from ffd_continual.strategies.training.template import FaceStrategy

SLOT = np.array([3, 0, 1, 3, 2, 1, 0])  # where the picture of a row lies
LABEL = np.array([0, 1, 0, 1])  # of the picture


@dataclass(frozen=True)
class NoConfig:
    """Nothing to set."""


class Brightness(Learner):
    """The logit is a face's first pixel; counts the faces that it is shown."""

    config_type = NoConfig
    shown = 0

    def forward(self, images: torch.Tensor) -> Output:
        self.shown += len(images)
        return Output(z=images[:, 0, 0, 0], features={"common": images.mean((2, 3))})


class Agent:
    """Batches of two."""

    def faces(self, rows: NDArray[np.int64]) -> Iterator[Batch]:
        """A picture's brightness is its slot."""
        for start in range(0, len(rows), 2):
            part = rows[start : start + 2]
            none, no = torch.zeros(len(part), 0), torch.zeros(len(part), dtype=torch.bool)
            fields: dict[str, Any] = {name: no if name.endswith("known") else none for name in Batch._fields}
            image = torch.tensor(SLOT[part], dtype=torch.float32)[:, None, None, None].expand(-1, 3, 2, 2)
            fields |= {"image": image, "target": torch.tensor(LABEL[SLOT[part]]), "row": torch.tensor(part)}
            yield Batch(**fields)


def _parts() -> tuple[FaceStrategy, Parts, Brightness]:
    learner = Brightness()
    keeper = SimpleNamespace(decide=lambda out: out.z)
    table = SimpleNamespace(slot=SLOT)
    parts = SimpleNamespace(learner=learner, keeper=keeper, sources=SimpleNamespace(table=table))
    return cast(FaceStrategy, Agent()), cast(Parts, parts), learner


def test_a_shared_face_is_shown_once_and_stands_for_every_row() -> None:
    agent, parts, learner = _parts()
    rows = np.array([6, 5, 0, 3, 1, 2])
    scores = score_once(agent, parts, rows)
    assert learner.shown == 3, "pictures 0, 1 and 3"
    assert scores["row"].tolist() == rows.tolist()
    assert scores["z"].tolist() == SLOT[rows].tolist()
    assert scores["label"].tolist() == LABEL[SLOT[rows]].tolist()
    assert list(scores.index) == list(range(6))
    judged = score_once(agent, parts, rows, Detector(learner, parts.keeper.decide, Calibration(), 1.5))
    assert judged["p"].notna().all()
    assert set(judged["threshold"]) == {1.5}


def test_a_threshold_counts_rows_not_pictures() -> None:
    """Real faces of z 0 (twice), forged ones of z 1 (twice): between them lies the threshold; 7 rows, 4 pictures."""
    agent, parts, learner = _parts()
    rows = np.arange(7)
    scores = score_once(agent, parts, rows)
    detector = calibrated(learner, parts.keeper.decide, scores)
    again = calibrated(learner, parts.keeper.decide, scores.sample(frac=1, random_state=0))
    assert len(detector.valid) == 7
    assert detector.threshold == again.threshold
    right = ((scores["z"] >= detector.threshold) == scores["label"].astype(bool)).mean()
    best = max(((scores["z"] >= cut) == scores["label"].astype(bool)).mean() for cut in (-1, 0.5, 1.5, 2.5, 4))
    assert right == best


def test_no_validation_faces_no_threshold() -> None:
    agent, parts, learner = _parts()
    scores = score_once(agent, parts, np.zeros(0, np.int64))
    assert scores.empty
    assert calibrated(learner, parts.keeper.decide, scores).threshold == 0.0
