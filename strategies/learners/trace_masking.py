"""FTMM: forged trace masking. The evidence map against the mask where it is known, and a contrast of what a face's
trace looks like with what is left of the face without it (this project's reading; see iin.py).
Axes: B faces, E features of a location, H, W height and width of the evidence map, S pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ffd_continual.replay.queues import FeatureQueue
from ffd_continual.scenarios.batch import Batch
from ffd_continual.strategies.learner import Losses
from ffd_continual.strategies.learners.iin_losses import mask_evidence, masked_mean, top_share, trace_contrast
from ffd_continual.strategies.learners.inter import InterOutput


class TraceMasking(nn.Module):
    """Stored traces of forged faces and stored features of real ones, and the space in which they are compared."""

    def __init__(
        self, local: int, queue: int, share: float, temperature: float, trace_weight: float, mask_weight: float
    ):
        super().__init__()
        self.share, self.temperature = share, temperature  # share: of the map's locations, that are a face's trace
        self.trace_weight, self.mask_weight = trace_weight, mask_weight
        self.project = nn.Linear(local, local)
        self.traced, self.untraced = (FeatureQueue(queue, local) for _ in range(2))

    def losses(self, answer: InterOutput, batch: Batch) -> Losses:
        """{"mask", "trace"}, each where the batch has what it needs."""
        losses: Losses = {}
        if batch.mask.shape[1]:
            losses["mask"] = self.mask_weight * mask_evidence(answer.evidence, batch.mask, batch.mask_known)
        where = top_share(answer.evidence.detach(), self.share)
        traced = F.normalize(self.project(masked_mean(answer.local, where)), dim=1)
        untraced = F.normalize(self.project(masked_mean(answer.local, 1.0 - where)), dim=1)
        forged, real = batch.target == 1, batch.target == 0
        if bool(forged.any()) and bool(real.any()):
            anchor = traced[forged]
            positives = torch.cat([anchor, self.traced.filled()[0].clone()])
            same = torch.zeros(len(anchor), len(positives), dtype=torch.bool, device=anchor.device)
            same.fill_diagonal_(True)
            # A real face has no trace: with or without its top locations it must stay real.
            negatives = torch.cat([traced[real], untraced[real], self.untraced.filled()[0].clone()])
            losses["trace"] = self.trace_weight * trace_contrast(
                anchor, positives, same, negatives, untraced[forged], self.temperature
            )
            self.traced.enqueue(anchor.detach())
            self.untraced.enqueue(traced[real].detach())
        return losses
