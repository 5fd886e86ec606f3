"""What a detector says of one face. Axes: S pixels a side, D features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ffd_continual.reporting.pictures import overlay

Picture = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Neighbour:
    """A stored face near a judged one; distance = 1 - cosine of the learner's features, 0 to 2."""

    path: str
    forgery: str  # "real" for a real face
    distance: float


@dataclass(frozen=True)
class Verdict:
    """What a detector says of one face."""

    z: float  # logit of the decision rule
    score: float  # calibrated probability of being forged, 0 to 1
    decision: str  # "forged", "real" or "no decision"
    attribution: dict[str, float]  # weights over known forgeries, summing to 1; {} where the learner has none
    novelty: float | None  # larger is less like anything known; 1 is the border of the ordinary for iin
    crop: Picture  # (S, S, 3) what the learner saw
    feature: npt.NDArray[np.float32]  # (D,) the learner's common feature
    trace: Picture | None = None  # (S, S) 0..255, where the learner sees forged pixels
    trace_kind: str = ""  # "trace", or "Grad-CAM" for learners without a trace map
    box: Box | None = None  # x, y, width, height of the face in its picture, pixels; None for crops
    neighbours: tuple[Neighbour, ...] = ()

    def overlay(self) -> Picture:
        """The crop with its trace map laid over it (S, S, 3); the crop itself where there is no map."""
        return self.crop if self.trace is None else overlay(self.crop, self.trace)

    def record(self) -> dict[str, Any]:
        """What is written of it: JSON-able, numbers to six digits."""
        best = max(self.attribution, key=lambda name: self.attribution[name]) if self.attribution else None
        made: dict[str, Any] = {
            "box": None if self.box is None else [round(v, 1) for v in self.box],
            "score": round(self.score, 6),
            "z": round(self.z, 6),
            "decision": self.decision,
            "attribution": best,
            "weights": {name: round(weight, 6) for name, weight in self.attribution.items()},
            "novelty": None if self.novelty is None else round(self.novelty, 6),
        }
        if self.neighbours:
            made["neighbours"] = [
                {"path": n.path, "forgery": n.forgery, "distance": round(n.distance, 6)} for n in self.neighbours
            ]
        return made
