"""Losses of the field's own continual strategies (cored, dfil, hdp, sur_lid) as pure functions.

Axes: B faces, N of them that count, D features, K confidence bins, G groups. All logits are those of one decision: z is
the class logits [0, z], so a softmax at temperature T is sigmoid(z / T).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ffd_continual.scenarios.batch import Batch
from ffd_continual.strategies.learner import Learner


def logit_distillation(new: Tensor, old: Tensor, temperature: float) -> Tensor:
    """Hinton et al. (arXiv:1503.02531): T^2 KL(softmax([0, old] / T) || softmax([0, new] / T)), mean over faces.

    new, old (B,) logits; 0 for no faces. T^2 keeps the gradient's size over temperatures.
    """
    if not len(new):
        return new.sum() * 0.0
    soft = torch.sigmoid(old / temperature)
    cross = F.binary_cross_entropy_with_logits(new / temperature, soft)
    entropy = F.binary_cross_entropy_with_logits(old / temperature, soft)
    return temperature**2 * (cross - entropy)


def feature_distillation(new: Tensor, old: Tensor) -> Tensor:
    """Mean squared difference of features (B, D); 0 for no faces."""
    return F.mse_loss(new, old) if len(new) else new.sum() * 0.0


def supervised_contrast(
    features: Tensor, groups: Tensor, temperature: float, more: Tensor | None = None, more_groups: Tensor | None = None
) -> Tensor:
    """Khosla et al. (NeurIPS 2020, Eq. 2): mean over anchors of -1/|P| sum_P log (exp(a.p / T) / sum_A exp(a.x / T)).

    features (B, D), made unit vectors here, are the anchors; A is every other one of them, and `more` (M, D) if given;
    P are those of A in the anchor's group (groups (B,), more_groups (M,)). Anchors with an empty P do not count; 0 when
    none is left.
    """
    unit = F.normalize(features, dim=1)
    others, other_groups = unit, groups
    if more is not None and more_groups is not None:
        others = torch.cat([unit, F.normalize(more, dim=1)])
        other_groups = torch.cat([groups, more_groups])
    own = torch.zeros(len(unit), len(others), dtype=torch.bool, device=unit.device)
    own.fill_diagonal_(True)
    likeness = (unit @ others.T / temperature).masked_fill(own, float("-inf"))
    positive = (groups[:, None] == other_groups[None, :]) & ~own
    usable = positive.any(dim=1)
    if not bool(usable.any()):
        return features.sum() * 0.0
    share = likeness[usable] - torch.logsumexp(likeness[usable], dim=1, keepdim=True)
    positive = positive[usable]
    return -(share.masked_fill(~positive, 0.0).sum(1) / positive.sum(1)).mean()


def confidence_bin(z: Tensor, labels: Tensor, bins: int) -> Tensor:
    """(B,) number of a face's bin among `bins` of one width from 0.5 to 1 of the probability of its own label, or -1
    for a face that the logit z (B,) takes for the other label (p below 0.5)."""
    own = torch.sigmoid(torch.where(labels == 1, z, -z))
    place = ((own - 0.5) * 2.0 * bins).floor().long().clamp(max=bins - 1)
    return torch.where(own >= 0.5, place, -1)


def bin_means(features: Tensor, labels: Tensor, places: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Means (2, K, D) of features (B, D) by label and bin (`confidence_bin`, -1 in none), and counts (2, K)."""
    inside = places >= 0
    cell = (labels * bins + places)[inside]
    count = torch.bincount(cell, minlength=2 * bins)
    total = torch.zeros(2 * bins, features.shape[1], dtype=features.dtype, device=features.device)
    total.index_add_(0, cell, features[inside])
    mean = total / count.clamp_min(1)[:, None].to(features.dtype)
    return mean.view(2, bins, -1), count.view(2, bins)


def representation_pull(features: Tensor, labels: Tensor, places: Tensor, means: Tensor, counts: Tensor) -> Tensor:
    """Mean over faces and features of the squared distance to the mean of a face's bin; faces in no bin, or in an empty
    one, do not count; 0 when none is left. Shapes as in `bin_means`."""
    inside = (places >= 0) & (counts[labels, places.clamp_min(0)] > 0)
    return feature_distillation(features[inside], means[labels[inside], places[inside]])


def as_shown(learner: Learner, batch: Batch) -> Batch:
    """The batch as the learner's step showed it to its network: plain and iin show some real faces self-blended, as
    forged, and which ones is a pure function of the batch."""
    config = getattr(learner, "config", None)
    for name in ("pretext", "pseudo"):
        share = getattr(config, name, 0.0)
        if isinstance(share, float) and share > 0:
            return batch.with_pseudo(share)[0]
    return batch
