"""Guide-Space's losses as pure functions (Guo et al., ICCV 2023, Eq. 3-8).

The public copy of the paper's text has lost its formulas: what they compute follows its prose, and each form is a
**reading**. Axes: B faces of the batch, M stored features, G guide embeddings, K neighbours, k sampled features,
D features. All features and embeddings have unit length. Similarity is the cosine.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ABSENT = -1e4  # a logit that adds nothing to a log-sum-exp; finite, so that an empty set has a gradient of 0, not NaN


def guide_loss(
    features: Tensor, guides: Tensor, own: Tensor, stored: Tensor, foreign: Tensor, weights: Tensor, temperature: float
) -> Tensor:
    """Eq. 3 (**reading**): mean over faces of w_i * -log p_i, p_i the share of a face's own guide embedding.

    features (B, D), guides (G, D), own (B,) index into guides, stored (M, D), foreign (B, M) true where a stored
    feature belongs to another domain than the face, weights (B,). p_i = exp(f.e_own/tau) over the sum of the same for
    all guides and for all foreign stored features. M may be 0.
    """
    to_guides = features @ guides.T / temperature
    to_stored = (features @ stored.T / temperature).masked_fill(~foreign, ABSENT)
    whole = torch.logsumexp(torch.cat([to_guides, to_stored], dim=1), dim=1)
    return (weights * (whole - to_guides.gather(1, own[:, None]).squeeze(1))).mean()


def weighted_bce(z: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Eq. 4: mean over faces of w_i times binary cross-entropy; z, target, weights (B,)."""
    each = F.binary_cross_entropy_with_logits(z, target.to(z.dtype), reduction="none")
    return (weights * each).mean()


def confidence(similarity: Tensor, kinds: Tensor, own: Tensor, found: Tensor, gamma: float) -> Tensor:
    """Eq. 5 (**reading**): similarity-weighted share of a face's neighbours that are of its own domain, (B,) in 0..1.

    similarity (B, K) cosines, kinds (B, K) domains of the neighbours (0 real), own (B,), found (B, K) false where there
    is no neighbour. A cosine counts as (1 + cos) / 2. A neighbour of another domain counts fully where it or the face
    is real, and by `gamma` < 1 where both are forged. A face without neighbours has confidence 1.
    """
    closeness = ((1.0 + similarity) / 2.0).clamp(0.0, 1.0).masked_fill(~found, 0.0)
    same = kinds == own[:, None]
    both_forged = (kinds > 0) & (own > 0)[:, None]
    against = torch.where(both_forged, gamma, 1.0) * closeness.masked_fill(same, 0.0)
    for_it = closeness.masked_fill(~same, 0.0).sum(1)
    total = for_it + against.sum(1)
    return torch.where(total > 0, for_it / total.clamp_min(1e-12), torch.ones_like(total))


def attention_weights(confident: Tensor) -> Tensor:
    """Eq. 6 (**reading**): w_i = B exp(-c_i) / sum_j exp(-c_j); mean 1, at most e times as large for one as another."""
    return torch.softmax(-confident, dim=0) * len(confident)


def draw(candidates: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` candidates (B, M) of each face without replacement, all where there are fewer.

    Index (B, k) and drawn (B, k) bool, k = min(count, M). Uses torch's generator.
    """
    score = torch.rand(candidates.shape, device=candidates.device).masked_fill(~candidates, -1.0)
    top, index = score.topk(min(count, candidates.shape[1]), dim=1)
    return index, top >= 0


def _mean_where(values: Tensor, usable: Tensor) -> Tensor:
    """Mean of values (B,) over the usable ones; 0, with gradient 0, when none is."""
    return (values * usable).sum() / usable.sum().clamp_min(1)


def push_loss(
    features: Tensor, guide: Tensor, stored: Tensor, index: Tensor, drawn: Tensor, temperature: float
) -> Tensor:
    """Eq. 7 (**reading**): faces of other domains that share a face's cluster are pushed away.

    k-positive contrast (Kang et al., ICLR 2021) with one positive, the face's own guide embedding, against the drawn
    features: mean over faces of log(1 + sum_q exp(f.q/tau) / exp(f.e/tau)). features, guide (B, D), stored (M, D),
    index and drawn (B, k). Faces for which nothing was drawn do not count.
    """
    positive = (features * guide).sum(1) / temperature
    negative = torch.einsum("bd,bkd->bk", features, stored[index]) / temperature
    logits = torch.cat([positive[:, None], negative.masked_fill(~drawn, ABSENT)], dim=1)
    return _mean_where(torch.logsumexp(logits, dim=1) - positive, drawn.any(1))


def pull_loss(
    features: Tensor, stored: Tensor, index: Tensor, drawn: Tensor, foreign: Tensor, temperature: float
) -> Tensor:
    """Eq. 8 (**reading**): faces of a face's own domain that lie in other clusters are pulled closer.

    k-positive contrast: mean over the drawn p of -log exp(f.p/tau) / (exp(f.p/tau) + sum_m exp(f.m/tau)), m over all
    stored features of other domains, foreign (B, M); then the mean over faces for which something was drawn.
    """
    positive = torch.einsum("bd,bkd->bk", features, stored[index]) / temperature
    negative = torch.logsumexp((features @ stored.T / temperature).masked_fill(~foreign, ABSENT), dim=1)
    each = torch.logaddexp(positive, negative[:, None]) - positive
    count = drawn.sum(1)
    return _mean_where((each * drawn).sum(1) / count.clamp_min(1), count > 0)
