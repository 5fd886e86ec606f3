"""How unlike everything known is a forged face? Scores, and how they are measured; larger is more novel.

*kinship*, the one that is used, asks three times whether a face is of any known kind, and means the answers, each in
units of its spread over validation forgeries: the largest logit of the modules of single forgeries; the largest linear
discriminant of a known forgery (Fisher, 1936); the cosine to the k-th nearest stored forged face in the directions that
tell known classes apart. Both latter read what the modules see beside residual statistics of the picture. All three are
signed, so a face that leans away from every known forgery is as novel as one that stands apart: real faces are novel,
too. *kinship-mixed* lets the nearest stored face be real, which keeps more of them out.
Others, to compare with: *learner*, the learner's own `Output.novelty`. *softmax*: one minus the largest class
probability (Hendrycks and Gimpel, ICLR 2017), classes being real and each known forgery, P(forged) shared out by the
attribution. *max-logit* (Hendrycks et al., ICML 2022), over modules. *mahalanobis*: squared distance to the nearest
class mean under one shared covariance (Lee et al., NeurIPS 2018). *neighbour*: distance to the k-th nearest stored face
(Sun et al., ICML 2022), in the whitened `common` or `special` features. docs/detector.md has figures.
Axes: N faces, M stored faces, F features, C classes, K known forgeries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ffd_continual.detecting.described import Described
from ffd_continual.measuring.metrics import auc
from ffd_continual.scenarios.errors import FFDError

Floats = npt.NDArray[np.float64]
K = 5
SHRINK = 0.1
TAUGHT = 300  # at most so many training faces of a forgery are described, and as many real ones; 100 do worse
SPACES = ("common", "special", "residual", "both")  # both: special and residual features side by side
BASELINES = ("softmax", "mahalanobis-common")
MORE = ("neighbour-common", "neighbour-special")
KINSHIP = ("kinship", "kinship-mixed")


@dataclass(frozen=True)
class Whitening:
    """Makes the known classes' own spread 1 in every direction: what is left of a distance is unlikeness."""

    names: tuple[str, ...]  # (C,) the classes
    centre: Floats  # (F,)
    scale: Floats  # (F, F)
    means: Floats  # (C, F) of the classes, whitened
    between: Floats  # (F, C - 1 or fewer) the directions in which the classes differ (Fisher, 1936)

    def __call__(self, features: Floats) -> Floats:
        """(N, F) to (N, F)."""
        return np.asarray((features - self.centre) @ self.scale)

    def kin(self, features: Floats) -> Floats:
        """(N, F) to what tells known classes apart (N, C - 1): scene and person hardly show in it."""
        return np.asarray((features - self.centre) @ (self.scale @ self.between))

    def discriminants(self, features: Floats) -> Floats:
        """(N, C): the log of each class's density up to a term that is the same for all, priors being equal."""
        means = self.means @ self.between
        return np.asarray(self.kin(features) @ means.T - (means**2).sum(1) / 2)


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
    between = rows[sizes > 1e-6 * max(1.0, float(sizes.max(initial=0.0)))].T
    return Whitening(tuple(found), centre, scale, white, between)


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
    """The scores of a detector that knows M stored faces (`classes`: "real" or the forgery of each).

    usual: faces of known forgeries that the detector was not taught on; they give the parts of kinship one scale. The
    stored forged faces, where there are none: these are better known than any other, so such a scale is a poor one.
    """

    def __init__(self, stored: Described, classes: Sequence[str], usual: Described | None = None):
        self.stored, self.classes = stored, np.array(classes)
        self.forged = self.classes != "real"
        self.usual = stored.take(self.forged) if usual is None else usual
        self._white: dict[str, Whitening] = {}

    def white(self, space: str) -> Whitening:
        """Fitted on the stored faces when it is first asked for."""
        if space not in self._white:
            self._white[space] = fit_whitening(features_of(self.stored, space), self.classes.tolist())
        return self._white[space]

    def ways(self) -> tuple[str, ...]:
        """The scores that this detector can give."""
        own = ("learner",) if np.isfinite(self.stored.novelty).all() else ()
        heard = ("max-logit",) if self.stored.heard.shape[1] else ()
        return (*own, *BASELINES, *heard, *MORE, *KINSHIP)

    def score(self, way: str, faces: Described) -> Floats:
        """(N,) by one of `ways`. FFDError on another."""
        if way not in self.ways():
            raise FFDError(f"no novelty score is called {way!r} for this detector. Known: {', '.join(self.ways())}.")
        if way == "learner":
            return faces.novelty
        if way == "softmax":
            return softmax_score(faces)
        if way == "max-logit":
            return np.asarray(-faces.heard.max(1))
        if way in KINSHIP:
            mixed = way == "kinship-mixed"
            usual = self.evidence(self.usual, mixed)
            spread = np.maximum(usual.std(0), 1e-9)
            return np.asarray(((self.evidence(faces, mixed) - usual.mean(0)) / spread).mean(1))
        kind, _, space = way.partition("-")
        white = self.white(space)
        if kind == "mahalanobis":
            return mahalanobis_score(white, features_of(faces, space))
        return neighbour_score(white(features_of(self.stored, space)), white(features_of(faces, space)))

    def evidence(self, faces: Described, mixed: bool) -> Floats:
        """(N, 3), each larger where a face is less like any known forgery; (N, 2) without modules."""
        white = self.white("both")
        stored = white.kin(features_of(self.stored, "both"))
        forged = [at for at, name in enumerate(white.names) if name != "real"]
        features = features_of(faces, "both")
        told = [
            -white.discriminants(features)[:, forged].max(1),
            neighbour_score(stored if mixed else stored[self.forged], white.kin(features)),
        ]
        if faces.heard.shape[1]:
            told.append(-faces.heard.max(1))
        return np.stack(told, axis=1)

    def families(self, faces: Described) -> Floats:
        """(N, 2 (C - 1)): what tells known classes apart in modules and in residuals; where groups are looked for.

        Its origin is the mean of all that is known: the direction from there is what a new forgery's faces share.
        """
        return np.concatenate([self.white(s).kin(features_of(faces, s)) for s in ("special", "residual")], axis=1)


def features_of(faces: Described, space: str) -> Floats:
    """(N, F) of one of SPACES."""
    if space == "both":
        return np.concatenate([faces.special, faces.residual], axis=1)
    return np.asarray(getattr(faces, space))


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
