"""How unlike everything known is a forged face? Four scores, and how they are measured; larger is more novel.

*learner*: the learner's own `Output.novelty`. *softmax*: one minus the largest class probability (Hendrycks and Gimpel,
ICLR 2017), classes being real and each known forgery, P(forged) shared out by the attribution. *mahalanobis*: squared
distance to the nearest class mean under one shared covariance (Lee et al., NeurIPS 2018). *neighbour*: distance to the
k-th nearest stored face (Sun et al., ICML 2022), both in a feature space: the learner's `common` one, `statistics` of
the frozen stages, or `special`, what all modules of single forgeries see, side by side;
*kin* is the latter, projected on the directions that tell known classes apart.
Axes: N faces, M stored faces, F features, K known forgeries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch

from ffd_continual.detecting.opened import Opened, Picture
from ffd_continual.measuring.metrics import auc
from ffd_continual.runs.modules import ask, expert_modules
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.views import to_planes
from ffd_continual.strategies.learners.trunk import Trunk, level_statistics

Floats = npt.NDArray[np.float64]
K = 5
SHRINK = 0.1


@dataclass(frozen=True)
class Described:
    """What a detector says of N faces, as arrays."""

    p: Floats  # (N,) calibrated probability of being forged
    weights: Floats  # (N, K) attribution; one column of ones where the learner has none
    novelty: Floats  # (N,) NaN where the learner has none
    common: Floats  # (N, F)
    statistics: Floats  # (N, F') of the frozen stages; `common` where the learner has no trunk
    special: Floats  # (N, K D) of the learner's modules; `common` where it has none

    def take(self, at: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Described:
        """Some of the faces."""
        return Described(*(getattr(self, one.name)[at] for one in fields(self)))


def join(parts: Sequence[Described]) -> Described:
    """Faces one after the other."""
    return Described(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Described)))


def describe_faces(detector: Opened, faces: Sequence[Picture]) -> Described:
    """Ask a detector about what its learner would see: (S, S, 3) RGB each. FFDError without any face."""
    if not faces:
        raise FFDError("there is no face to describe.")
    verdicts = detector.ask(faces, maps=False)
    common = np.stack([verdict.feature for verdict in verdicts]).astype(np.float64)
    trunk, statistics = getattr(detector.learner, "trunk", None), common
    if isinstance(trunk, Trunk) and len(trunk.low):
        made = []
        with torch.inference_mode():
            for start in range(0, len(faces), detector.config.train.eval_batch):
                images = torch.from_numpy(to_planes(faces[start : start + detector.config.train.eval_batch]))
                made.append(level_statistics(trunk.levels(images.to(detector.device))).double().cpu().numpy())
        statistics = np.concatenate(made)
    weights = [list(verdict.attribution.values()) or [1.0] for verdict in verdicts]
    novelty = [np.nan if verdict.novelty is None else verdict.novelty for verdict in verdicts]
    special = _special(detector, faces)
    scores = np.array([verdict.score for verdict in verdicts])
    return Described(
        scores, np.array(weights), np.array(novelty), common, statistics, common if special is None else special
    )


def _special(detector: Opened, faces: Sequence[Picture]) -> Floats | None:
    """What each module of one forgery sees (N, K D); None for a learner without such modules."""
    if expert_modules(detector.learner) is None:
        return None
    made, batch = [], detector.config.train.eval_batch
    for start in range(0, len(faces), batch):
        frozen = detector.learner.frozen(torch.from_numpy(to_planes(faces[start : start + batch])).to(detector.device))
        if frozen is None:
            return None
        made.append(ask(detector.learner, [frozen]).special.flatten(1).double().cpu().numpy())
    return np.concatenate(made)


@dataclass(frozen=True)
class Whitening:
    """Makes the known classes' own spread 1 in every direction: what is left of a distance is unlikeness."""

    centre: Floats  # (F,)
    scale: Floats  # (F, F)
    means: Floats  # (C, F) of the classes, whitened
    between: Floats  # (F, C - 1 or fewer) the directions in which the classes differ (Fisher, 1936)

    def __call__(self, features: Floats) -> Floats:
        """(N, F) to (N, F)."""
        return np.asarray((features - self.centre) @ self.scale)

    def kin(self, features: Floats) -> Floats:
        """(N, F) to what tells known classes apart (N, C - 1): scene and person hardly show in it."""
        return np.asarray(self(features) @ self.between)


def fit_whitening(features: Floats, classes: Sequence[str]) -> Whitening:
    """From stored faces (M, F) and their classes: one within-class covariance for all, shrunk to its diagonal."""
    names = np.array(classes)
    found = sorted(set(classes))
    means = np.stack([features[names == name].mean(0) for name in found])
    inner = features - means[np.searchsorted(found, names)]
    covariance = inner.T @ inner / max(1, len(features) - len(found))
    diagonal = np.diag(np.maximum(np.diag(covariance), 1e-8))
    shrink = max(SHRINK, min(1.0, features.shape[1] / (10 * len(features))))  # few faces know little of directions
    values, vectors = np.linalg.eigh((1 - shrink) * covariance + shrink * diagonal)
    scale = vectors / np.sqrt(np.maximum(values, 1e-10))
    centre = features.mean(0)
    white = (means - centre) @ scale
    _, sizes, rows = np.linalg.svd(white - white.mean(0), full_matrices=False)
    return Whitening(centre, scale, white, rows[sizes > 1e-6 * max(1.0, float(sizes.max(initial=0.0)))].T)


def softmax_score(faces: Described) -> Floats:
    """1 - max(P(real), P(forged) w_k)."""
    return np.asarray(1.0 - np.maximum(1.0 - faces.p, (faces.p[:, None] * faces.weights).max(1)))


def mahalanobis_score(whitening: Whitening, features: Floats) -> Floats:
    """Squared distance (N,) to the nearest class mean, over F."""
    made = whitening(features)
    return np.asarray(((made[:, None, :] - whitening.means[None]) ** 2).mean(2).min(1))


def neighbour_score(stored: Floats, features: Floats, k: int = K) -> Floats:
    """1 - cosine (N,) to the k-th nearest stored face (M, F)."""
    unit, own = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (features, stored))
    near = np.sort(unit @ own.T, axis=1)[:, ::-1]
    return np.asarray(1.0 - near[:, min(k, near.shape[1]) - 1])


class Novelty:
    """The scores of a detector that knows M stored faces (`classes`: "real" or the forgery of each)."""

    def __init__(self, stored: Described, classes: Sequence[str]):
        self.stored = stored
        self.white: Mapping[str, Whitening] = MappingProxyType(
            {space: fit_whitening(getattr(stored, space), classes) for space in SPACES}
        )

    def ways(self) -> tuple[str, ...]:
        """The scores that this detector can give."""
        own = ("learner",) if np.isfinite(self.stored.novelty).all() else ()
        return (*own, *BASELINES, *MORE)

    def score(self, way: str, faces: Described) -> Floats:
        """(N,) by one of `ways`. FFDError on another."""
        if way == "learner" and "learner" in self.ways():
            return faces.novelty
        if way == "softmax":
            return softmax_score(faces)
        kind, _, space = way.partition("-")
        if kind == "mahalanobis" and space in self.white:
            return mahalanobis_score(self.white[space], getattr(faces, space))
        if space == "kin" and kind in ("mahalanobis", "neighbour"):
            white = self.white["special"]
            own, theirs = white.kin(self.stored.special), white.kin(faces.special)
            if kind == "neighbour":
                return neighbour_score(own, theirs)
            means = white.means @ white.between
            return np.asarray(((theirs[:, None, :] - means[None]) ** 2).mean(2).min(1))
        if kind == "neighbour" and space in self.white:
            white = self.white[space]
            return neighbour_score(white(getattr(self.stored, space)), white(getattr(faces, space)))
        raise FFDError(f"no novelty score is called {way!r} for this detector. Known: {', '.join(self.ways())}.")


SPACES = ("common", "statistics", "special")
BASELINES = ("softmax", "mahalanobis-common")
MORE = (
    *(f"mahalanobis-{space}" for space in (*SPACES[1:], "kin")),
    *(f"neighbour-{space}" for space in (*SPACES, "kin")),
)


@dataclass(frozen=True)
class Flagging:
    """How well a score tells novel faces from known ones; the last two at a threshold that was fixed before."""

    auroc: float
    fpr95: float  # share of known faces flagged where 95 % of novel ones are
    flagged: float  # share of novel faces above the threshold
    false: float  # share of known faces above it


def measure_flagging(known: Floats, novel: Floats, threshold: float) -> Flagging:
    """Scores of known and of novel faces; novel ones are the positives."""
    labels = np.concatenate([np.zeros(len(known), int), np.ones(len(novel), int)])
    cut = np.sort(novel)[int(0.05 * len(novel) + 1e-9)]
    return Flagging(
        auc(labels, np.concatenate([known, novel])),
        float((known >= cut).mean()),
        float((novel > threshold).mean()),
        float((known > threshold).mean()),
    )
