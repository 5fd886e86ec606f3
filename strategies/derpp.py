"""DER++: dark experience replay. Buzzega et al., "Dark experience for general continual learning", NeurIPS 2020
(arXiv:2004.07211), Eq. 6.

    L = L_t + alpha |h(x') - z'|^2 + beta CE(y'', h(x'')),   (x', z') and (x'', y''): two draws from the memory

z' is the logit stored with a face, h(x) the decision's logit, CE its binary cross-entropy; both means over faces.
Deviations: faces enter the memory when their experience ends, with the logit of that moment (in the paper at every
step, so that steps here stay pure functions of what a checkpoint holds); the memory is shared evenly over forgery x
label, a reservoir inside each; both draws together are `share` of the batch, whose size stays: no further cost. The
learner's other losses see the current faces only. Axes: B faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ffd_continual.strategies.replay import ReplayConfig
from ffd_continual.strategies.set_aside import ApartReplay, decision_loss, look_apart
from ffd_continual.strategies.strategy import Rows

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


@dataclass(frozen=True)
class DERppConfig(ReplayConfig):
    """Replay's settings, and the paper's weights for CIFAR-10 with 200 stored pictures."""

    alpha: float = 0.1
    beta: float = 0.5


def dark_loss(z: Tensor, stored: Tensor) -> Tensor:
    """Mean over faces of (h(x') - z')^2; the class logits are [0, z], so the other class adds nothing."""
    return ((z.float() - stored) ** 2).mean()


class DERpp(ApartReplay):
    """Replay of logits on one draw, of labels on another."""

    config_type = DERppConfig
    stores_logits = True

    def draw(self, count: int, rng: np.random.Generator) -> Rows:
        """Two independent draws, one after the other: the larger half for logits, the rest for labels."""
        first = count - count // 2
        return np.concatenate([super().draw(first, rng), super().draw(count - first, rng)])

    def stored_logits(self, rows: Tensor) -> Tensor:
        """z' of stored rows (B,), float32 on their device."""
        place = {int(row): i for i, row in enumerate(self.memory.table.row)}
        found = self.memory.table.logit[[place[int(row)] for row in rows]]
        return torch.from_numpy(found).to(rows.device)

    def before_update(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """One pass over both draws adds the gradients of the two terms."""
        faces = self.take_apart()
        if faces is None:
            return
        first = len(faces.target) - len(faces.target) // 2
        z = look_apart(strategy, faces).z
        terms = {"derpp_logits": self.config.alpha * dark_loss(z[:first], self.stored_logits(faces.row[:first]))}
        if len(z) > first:
            terms["derpp_labels"] = self.config.beta * decision_loss(z[first:], faces.target[first:])
        strategy.losses |= {name: term.detach() for name, term in terms.items()}
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
