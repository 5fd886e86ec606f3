"""What validation faces say of a detector: calibration, thresholds and framing, kept in the run's `detector.json`.

A prediction needs these and no data. Validation scores themselves are kept (at most `KEPT` a class), so that a
threshold can be had for any false alarm rate that the faces are enough for. Axes: n validation faces, S pixels a side.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ffd_continual.measuring.calibration import Calibration
from ffd_continual.measuring.matrix import number
from ffd_continual.measuring.metrics import Floats, ece
from ffd_continual.runs.detector import Detector
from ffd_continual.runs.folder import write_text
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.table import FaceTable

FORMAT = 1
NAME = "detector.json"
KEPT = 20_000
SHOWN = (0.01, 0.05, 0.10)
DEFAULT_FPR = DEFAULT_BAND = 0.05
FRAMED = 256  # training faces whose landmarks tell the framing


@dataclass(frozen=True)
class Framing:
    """How faces lie in the learner's crop, in shares of its side: the landmark hull's longer side, and its centre."""

    extent: float
    x: float
    y: float


@dataclass(frozen=True)
class Rule:
    """z >= `forged` says forged, z < `real` says real, anything between is no decision. real <= forged."""

    fpr: float
    band: float
    forged: float
    real: float

    def decide(self, z: float) -> str:
        """ "forged", "real" or "no decision"."""
        return "forged" if z >= self.forged else "real" if z < self.real else "no decision"


@dataclass(frozen=True)
class Facts:
    """Of a detector after `experience`; scores ascending. Without validation faces, p = sigmoid(z), threshold 0."""

    experience: int
    calibration: Calibration
    threshold: float  # on z, of best balanced accuracy
    real: Floats  # (n,) z of validation's real faces, at most KEPT of them, evenly by rank
    forged: Floats
    reals: int  # how many there were
    forgeds: int
    ece_before: float | None  # of sigmoid(z), on validation
    ece_after: float | None  # of the calibrated probability, on the same faces that it was fitted on
    framing: Framing | None  # None where no training face has landmarks

    def forged_from(self, fpr: float) -> float:
        """The lowest threshold with a false alarm rate of at most `fpr` on validation.

        FFDError when so few real faces cannot tell such a rate: it needs 1 / fpr of them at least.
        """
        _check_rate("fpr", fpr, self.reals, "real")
        allowed = int(fpr * len(self.real) + 1e-9)
        edge = self.real[len(self.real) - 1 - allowed]
        above = self.real[self.real > edge]
        return float((edge + above[0]) / 2 if len(above) else np.nextafter(edge, np.inf))

    def real_below(self, fnr: float) -> float:
        """The highest threshold with at most a share `fnr` of validation's forged faces below it. FFDError as above."""
        _check_rate("band", fnr, self.forgeds, "forged")
        return float(self.forged[int(fnr * len(self.forged) + 1e-9)])

    def rule(self, fpr: float | None = None, band: float | None = None) -> Rule:
        """Forged where at most `fpr` of validation's real faces lie; real where at most `band` of its forged ones do.

        band 0: everything else is real, and nothing is left undecided. None: 5 %, or one face where there are fewer
        than 20. Raises FFDError where the validation faces are too few, or there are none.
        """
        if not self.reals or not self.forgeds:
            raise FFDError(
                "this detector was measured without validation faces of both classes, so no decision can be made at a "
                "chosen false alarm rate. Train it on data with a valid split."
            )
        chosen = min(max(DEFAULT_FPR, 1 / self.reals), 0.5) if fpr is None else fpr
        width = min(max(DEFAULT_BAND, 1 / self.forgeds), 0.5) if band is None else band
        forged = self.forged_from(chosen)
        real = min(self.real_below(width), forged) if width > 0 else forged
        return Rule(chosen, width, forged, real)


def _check_rate(name: str, rate: float, count: int, kind: str) -> None:
    if not 0 < rate < 1:
        raise FFDError(f"{name} is a share above 0 and below 1, not {rate}.")
    if rate * count < 1 - 1e-9:
        raise FFDError(
            f"{name} {rate:g} asks for more than the {count} {kind} validation faces can tell, one of which is "
            f"{1 / max(1, count):.2g}. Ask for {_above(1 / max(1, count))} or more, or train with more of them."
        )


def _above(rate: float) -> str:
    """A rate rounded up to two digits."""
    scale = 10 ** (2 - int(np.ceil(np.log10(rate))))
    return f"{np.ceil(rate * scale) / scale:g}"


def _thinned(scores: Floats) -> Floats:
    ordered = np.sort(scores)
    return ordered if len(ordered) <= KEPT else ordered[np.linspace(0, len(ordered) - 1, KEPT).round().astype(int)]


def framing_of(landmarks: np.ndarray[Any, Any], size: int) -> Framing | None:
    """The median framing of landmarks (n, 68, 2) in pixels of crops of `size`; rows with NaN count as unknown."""
    known = landmarks[np.isfinite(landmarks).all((1, 2))].astype(np.float64)
    if not len(known):
        return None
    low, high = known.min(1), known.max(1)
    centre = np.median((low + high) / 2 + 0.5, axis=0) / size
    return Framing(float(np.median((high - low).max(1)) / size), float(centre[0]), float(centre[1]))


def measured(detector: Detector, table: FaceTable, experience: int) -> Facts:
    """What the validation faces that a detector was calibrated on say; one that experiences share counts once."""
    train = np.flatnonzero(((table.rows["stream"] == "train") & (table.rows["label"] == 0)).to_numpy())[:FRAMED]
    framing, valid, none = framing_of(table.landmarks[table.slot[train]], table.size), detector.valid, np.zeros(0)
    calibration, threshold = detector.calibration, detector.threshold
    if valid.empty:
        return Facts(experience, calibration, threshold, none, none, 0, 0, None, None, framing)
    labels, z = valid["label"].to_numpy(), valid["z"].to_numpy()
    before, after = ece(labels, Calibration().apply(z)), ece(labels, calibration.apply(z))
    once = np.unique(table.slot[valid["row"].to_numpy()], return_index=True)[1]
    real, forged = z[once][labels[once] == 0], z[once][labels[once] == 1]
    kept = (_thinned(real), _thinned(forged), len(real), len(forged))
    return Facts(experience, calibration, threshold, *kept, before, after, framing)


def write_facts(folder: Path, facts: Facts) -> None:
    """`detector.json` of a run; what a later experience has written there already stays."""
    path = folder / NAME
    try:
        if int(json.loads(path.read_text(encoding="utf-8"))["experience"]) > facts.experience:
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or a damaged one: it is written anew
    values: dict[str, Any] = {"format": FORMAT, **asdict(facts)}
    values["thresholds"] = {f"fpr {rate:g}": facts.forged_from(rate) for rate in SHOWN if rate * facts.reals >= 1}
    values |= {"real": [number(v) for v in facts.real], "forged": [number(v) for v in facts.forged]}
    write_text(path, json.dumps(values))


def read_facts(folder: Path, experience: int) -> Facts:
    """What `write_facts` wrote. FFDError for a run that has none, that has not finished, or of another version."""
    path = folder / NAME
    again = f"Delete the newest file of {folder / 'predictions'}, then `ffd resume {folder}` writes it."
    if not path.is_file():
        raise FFDError(f"{folder} has no {NAME}: the run is not finished, or older than that file. {again}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise FFDError(f"{path} has format {values['format']}, this version reads {FORMAT}. {again}")
        facts = Facts(
            int(values["experience"]),
            Calibration(**values["calibration"]),
            float(values["threshold"]),
            np.asarray(values["real"], np.float64),
            np.asarray(values["forged"], np.float64),
            int(values["reals"]),
            int(values["forgeds"]),
            values["ece_before"],
            values["ece_after"],
            None if values["framing"] is None else Framing(**values["framing"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FFDError(f"{path} is damaged ({error}). {again}") from error
    if facts.experience != experience:
        raise FFDError(
            f"{path} was written after experience {facts.experience}, the newest checkpoint is of {experience}: the "
            f"run is not finished. `ffd resume {folder}` finishes it."
        )
    return facts
