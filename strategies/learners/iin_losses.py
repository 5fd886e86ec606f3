"""IIN's equations as pure functions (this project's reading; the paper's own layers and losses are not public).

Axes: B faces, D features, M stored features, K types, H, W height and width of a map, L = H * W.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def instance_contrast(query: Tensor, key: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE (van den Oord et al., arXiv:1807.03748, as in MoCo): mean over faces of -log p(own key).

    query, key (B, D) and negatives (M, D), unit length; M may be 0, then the loss is 0.
    """
    positive = (query * key).sum(1, keepdim=True)
    logits = torch.cat([positive, query @ negatives.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))


def within_class(features: Tensor, labels: Tensor) -> Tensor:
    """Features (B, D) minus the mean of their own class: both kinds of features predict the label, so class means
    always correlate and must not count."""
    centred = features.clone()
    for label in (0, 1):
        member = labels == label
        centred[member] = features[member] - features[member].mean(0)
    return centred


def cross_correlation(first: Tensor, second: Tensor, labels: Tensor, eps: float = 1e-5) -> Tensor:
    """Correlation matrix (D1, D2) of two features over B faces, after each class's mean is removed."""
    a, b = within_class(first, labels), within_class(second, labels)
    # Where a feature does not vary (one face of a class) the root's slope at 0 would be infinite, and 0 x inf is NaN.
    a = a / (a.pow(2).mean(0).clamp_min(1e-20).sqrt() + eps)
    b = b / (b.pow(2).mean(0).clamp_min(1e-20).sqrt() + eps)
    return a.T @ b / len(a)


def decoupling(common: Tensor, special: Tensor, labels: Tensor) -> Tensor:
    """Mean squared entry of the cross-correlation matrix: 0 when no pair of features is linearly related."""
    return cross_correlation(common, special, labels).pow(2).mean()


def top_share(evidence: Tensor, share: float) -> Tensor:
    """The trace: 1 at the ceil(share * L) largest of an evidence map (B, 1, H, W), else 0; ties go to the earlier."""
    flat = evidence.flatten(1)
    count = max(1, -int(-share * flat.shape[1] // 1))
    order = flat.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(flat).scatter_(1, order, 1.0).view_as(evidence)


def masked_mean(features: Tensor, mask: Tensor) -> Tensor:
    """Mean of a map (B, C, H, W) over the locations where mask (B, 1, H, W) is 1; 0 where the mask is empty."""
    return (features * mask).sum((2, 3)) / mask.sum((2, 3)).clamp_min(1.0)


def trace_contrast(
    anchor: Tensor, positives: Tensor, same: Tensor, negatives: Tensor, own: Tensor, temperature: float
) -> Tensor:
    """Forged traces look alike, and unlike anything real (FTMM's InfoNCE with several positives).

    anchor (B, D): trace features of forged faces; positives (P, D): trace features of forged faces (batch and queue);
    same (B, P) bool: true where a positive is the anchor's own face, which does not count; negatives (N, D): features
    of real faces; own (B, D): each face's own trace-masked feature. All unit length. Mean over anchors of
    -log of the mean positive's share; 0 when no anchor has a positive.
    """
    like = (anchor @ positives.T / temperature).masked_fill(same, float("-inf"))
    unlike = torch.cat([anchor @ negatives.T, (anchor * own).sum(1, keepdim=True)], dim=1) / temperature
    usable = ~same.all(dim=1)
    if not bool(usable.any()):
        return anchor.sum() * 0.0
    like, unlike = like[usable], unlike[usable]
    count = (~same[usable]).sum(1).to(anchor.dtype)
    mean_positive = torch.logsumexp(like, dim=1) - count.log()
    # The mean over positives keeps the loss independent of how full the queue is.
    return (torch.logaddexp(mean_positive, torch.logsumexp(unlike, dim=1)) - mean_positive).mean()


def mask_evidence(evidence: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of the evidence map (B, 1, H, W) against the share of forged pixels in each location.

    mask (B, 1, S, S) in 0..1, known (B,) bool; 0 when no mask is known. Real faces count with their empty mask.
    """
    if not bool(known.any()):
        return evidence.sum() * 0.0
    share = F.adaptive_avg_pool2d(mask[known], (evidence.shape[-2], evidence.shape[-1]))
    return F.binary_cross_entropy_with_logits(evidence[known], share)


def mixture(z: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Experts' logits (B, K) under log prior weights (B, K), rows of exp summing to 1, to the logit (B,) of
    p = sum_k w_k sigmoid(z_k), and the share (B, K) of each expert in p (Jacobs et al., Neural Computation 3, 1991)."""
    forged, real = log_weights + F.logsigmoid(z), log_weights + F.logsigmoid(-z)
    return torch.logsumexp(forged, dim=1) - torch.logsumexp(real, dim=1), torch.softmax(forged, dim=1)


def odds_mixture(z: Tensor, log_weights: Tensor, lapse: float) -> tuple[Tensor, Tensor]:
    """Experts of one type each, under log prior weights (B, K): the logit (B,) and the share (B, K) of each in it.

    A face is real, or forged in one of K ways, so Bayes' rule adds up the experts' odds: sum_k w_k p_k / (1 - p_k), p =
    sigmoid(z). Faces of another source make an expert surer than it may be; where it errs in a share `lapse` e of
    cases, its odds p / (1 - p + e) end at 1 / e. The sum is put back on an expert's scale, so that experts who agree
    are not changed: this is `mixture` with weights w_k / (1 - p_k + e). A lapse near 0 gives the plain sum, a large one
    `mixture` itself. lapse > 0.
    """
    return mixture(z, log_weights - (torch.sigmoid(-z) + lapse).log())
