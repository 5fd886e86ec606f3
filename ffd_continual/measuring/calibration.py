"""From a score to a probability, fitted on validation only: Platt scaling and temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize, minimize_scalar

from ffd_continual.measuring.metrics import Floats, as_labels_and_scores
from ffd_continual.scenarios.errors import FFDError


@dataclass(frozen=True)
class Calibration:
    """P(forged) = sigmoid(scale * z + offset). The scale is positive, so no measure of ranking changes."""

    scale: float = 1.0
    offset: float = 0.0

    def apply(self, z: ArrayLike) -> Floats:
        """Probabilities, same shape as z."""
        score = self.scale * np.asarray(z, dtype=np.float64) + self.offset
        return np.asarray(np.exp(-np.logaddexp(0.0, -score)))


def _prepare(labels: ArrayLike, z: ArrayLike, balanced: bool) -> tuple[Floats, Floats, Floats]:
    """Scores, Platt's smoothed targets and weights that sum to 1."""
    forged, scores = as_labels_and_scores(labels, z)
    if forged.all() or not forged.any():
        raise FFDError("calibration needs real and forged validation faces; one of the two is missing")
    hits, reals = int(forged.sum()), int((~forged).sum())
    # Platt's targets: without them perfectly separated scores would ask for an infinite scale.
    targets = np.where(forged, (hits + 1.0) / (hits + 2.0), 1.0 / (reals + 2.0))
    weights = np.where(forged, 0.5 / hits, 0.5 / reals) if balanced else np.full(len(scores), 1.0 / len(scores))
    return scores, targets, weights


def _cross_entropy(logits: Floats, targets: Floats, weights: Floats) -> float:
    return float((weights * (np.logaddexp(0.0, logits) - targets * logits)).sum())


def fit_platt(labels: ArrayLike, z: ArrayLike, balanced: bool = True) -> Calibration:
    """Scale and offset by maximum likelihood (Platt, 1999; smoothed targets as in Lin, Lin and Weng, 2007).

    labels (n,), z (n,). balanced: both classes weigh the same, as if half of all faces were forged. A detector that is
    worse than chance on validation gets a scale near 0 (probabilities near the base rate), never an inverted order.
    """
    scores, targets, weights = _prepare(labels, z, balanced)
    middle, spread = float(np.median(scores)), float(scores.std()) or 1.0
    unit = (scores - middle) / spread  # conditions the search: z may span 1e-3 or 1e3

    def loss(at: Floats) -> tuple[float, Floats]:
        logits = np.exp(at[0]) * unit + at[1]
        slope = weights * (np.exp(-np.logaddexp(0.0, -logits)) - targets)
        return _cross_entropy(logits, targets, weights), np.array([np.exp(at[0]) * (slope @ unit), slope.sum()])

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-12.0, 12.0), (-50.0, 50.0)], tol=1e-12)
    scale = float(np.exp(found.x[0])) / spread
    return Calibration(scale=scale, offset=float(found.x[1]) - scale * middle)


def fit_temperature(labels: ArrayLike, z: ArrayLike, balanced: bool = True) -> Calibration:
    """One scale 1/T, the zero of z kept (Guo et al., ICML 2017, section 4.2). Arguments as in `fit_platt`."""
    scores, targets, weights = _prepare(labels, z, balanced)
    spread = float(np.sqrt((scores**2).mean())) or 1.0
    found = minimize_scalar(
        lambda log_scale: _cross_entropy(np.exp(log_scale) / spread * scores, targets, weights),
        bounds=(-12.0, 12.0),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return Calibration(scale=float(np.exp(found.x)) / spread)
