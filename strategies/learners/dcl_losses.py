"""DCL's equations as pure functions: Sun et al., "Dual Contrastive Learning for General Face Forgery Detection", AAAI
2022. Eq. 1 is inter.py's `follow`; Eq. 4-6 are replay/queues.py's ClassQueues with HardSample.

Deviations: Eq. 2 gets the minus sign it lacks in print. Eq. 7's second sum runs over every pair of a forged and a real
part (its printed bounds n and k are swapped). Eq. 8 takes cosines, as Eq. 3 and 7 do: raw inner products overflow and
are unbounded below; so it lies between -1/tau - 2 log L and 1/tau - 2 log L. The similarity of a part to itself counts
in Eq. 7 and 8, as printed (i, j from 1 to n; the whole Gram matrix). At tau 0.07 those pairs, exp(14.3) each, outweigh
all others until parts are nearly parallel: both losses hardly move. `self_pairs=False` leaves them out, i != j, and is
not the paper's formula. **Reading**: losses are means over the faces they apply to.
Axes: B faces, D = L = H' W' locations, C channels, M stored keys, n real and k forged parts of a face (n + k = L).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def decision_loss(z: Tensor, target: Tensor) -> Tensor:
    """Eq. 2 with its minus sign: binary cross-entropy of logits (B,) and labels (B,), mean over faces."""
    return F.binary_cross_entropy_with_logits(z.float(), target.float())


def stored_similarity(query: Tensor, stored: Tensor, tau: float) -> Tensor:
    """log sum_m exp(cosine(q, k_m) / tau) of queries (B, D) and stored keys (M, D), both of unit length: (B,).

    The gradient, the mean stored key under the softmax of the similarities, is made along with the value: 30,000 keys
    take one pass, and autograd holds none of them, so the ring may be written to before the backward pass.
    """
    with torch.no_grad():
        weights = (query / tau) @ stored.T
        largest = weights.amax(1, keepdim=True)
        total = weights.sub_(largest).exp_().sum(1, keepdim=True)
        value = (largest + total.log()).squeeze(1)
        pull = weights @ stored / (total * tau)
    slope = (query * pull).sum(1)
    return value + slope - slope.detach()


def inter_loss(
    query: Tensor, key: Tensor, target: Tensor, real_keys: Tensor, forged_keys: Tensor, tau: float
) -> Tensor:
    """Eq. 3: each query (B, D) near the key (B, D) of its own other view, far from the stored keys of the other class.

    real_keys (M_r, D), forged_keys (M_f, D), of unit length and without gradient: a real query has M_f for negatives, a
    forged one M_r. Queries and keys are compared by cosine. A face whose queue is empty costs 0. Mean over faces.
    """
    q, k = F.normalize(query.float(), dim=1), F.normalize(key.float(), dim=1)
    loss = q.sum() * 0.0
    for label, others in ((0, forged_keys), (1, real_keys)):
        mine = target == label
        if len(others) and bool(mine.any()):
            own = (q[mine] * k[mine]).sum(1) / tau
            against = stored_similarity(q[mine], others, tau)
            loss = loss + F.softplus(against - own).sum() / len(target)
    return loss


def self_similarity(maps: Tensor, tau: float, self_pairs: bool = True) -> Tensor:
    """delta(p_i, p_j) / tau of all locations of maps (B, C, H', W'): (B, L, L); -inf for i = j without self pairs."""
    parts = F.normalize(maps.float().flatten(2), dim=1)
    similarity = parts.transpose(1, 2) @ parts / tau
    if self_pairs:
        return similarity
    return similarity.masked_fill(torch.eye(similarity.shape[1], dtype=torch.bool, device=maps.device), -torch.inf)


def forged_parts(mask: Tensor, size: tuple[int, int], share: float) -> Tensor:
    """m resized to H' x W': pixels (B, 1, S, S) in 0..1 to the forged locations (B, L), bool.

    **Reading** (the paper gives no threshold): forged where at least `share` of the location's pixels are.
    """
    return F.adaptive_avg_pool2d(mask, size).flatten(1) >= share


def intra_forged_loss(maps: Tensor, forged: Tensor, tau: float, self_pairs: bool = True) -> Tensor:
    """Eq. 7: -log of real-real similarity over real-real plus forged-real; forged parts are not drawn together.

    maps (B, C, H', W'), forged (B, L) bool. Mean over the faces that have parts of both kinds (two real ones without
    self pairs), 0 when none has.
    """
    usable = forged.any(1) & ((~forged).sum(1) >= (1 if self_pairs else 2))
    if not bool(usable.any()):
        return maps.sum() * 0.0
    similarity, forged = self_similarity(maps[usable], tau, self_pairs), forged[usable]
    real = ~forged
    alike = real[:, :, None] & real[:, None, :]
    apart = forged[:, :, None] & real[:, None, :]
    together = similarity.masked_fill(~alike, -torch.inf).flatten(1).logsumexp(1)
    against = similarity.masked_fill(~apart, -torch.inf).flatten(1).logsumexp(1)
    return F.softplus(against - together).mean()


def intra_real_loss(maps: Tensor, tau: float, self_pairs: bool = True) -> Tensor:
    """Eq. 8: -log of the sum of exp(cosine / tau) over all pairs of locations of real faces' maps (B, C, H', W').

    Least, -1/tau - 2 log L, where a face's locations all point one way. Mean over faces, 0 for none.
    """
    if not len(maps):
        return maps.sum() * 0.0
    return -self_similarity(maps, tau, self_pairs).flatten(1).logsumexp(1).mean()


def balance(progress: float, first: bool, phi: float, phi_start: float, warmup: float) -> float:
    """phi of Eq. 10: `phi_start` while `progress` (0..1) of the first experience is below `warmup`, then `phi`."""
    return phi_start if first and progress < warmup else phi
