"""Where streams and branches meet: channel-attention fusion, bilinear pooling, and its rivals of the ablation.

Source: Jia et al., IEEE TBIOM 2021, sections III-A (fusion), III-B (Eq. 1-5) and IV-C (direct summation).
**Reading** of the fusion, of which the paper gives one sentence: each stream's channel means pass through two linear
layers of its own (C to C/4 to C, ReLU between, as in squeeze-and-excitation), and a softmax over the streams makes the
weights of every channel sum to 1. **Reading** of Fig. 5: the segmentation map is mean-pooled and the classification
map interpolated (bilinear) to a size between them, `meeting` times the latter's side.
Deviation: Eq. 4's square root is taken of |x| + 1e-6, since its slope at 0 is infinite; 0 stays 0.
Axes: B faces, S streams, C channels, h, w and H, W sizes of maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT_FLOOR = 1e-6


def weighted_sum(streams: Sequence[Tensor], scores: Tensor) -> Tensor:
    """Streams (B, C, h, w) each, scores (B, S, C), to sum_s softmax_s(scores) * stream_s: (B, C, h, w)."""
    weights = torch.softmax(scores, dim=1)
    return torch.stack([w[:, :, None, None] * x for w, x in zip(weights.unbind(1), streams, strict=True)]).sum(0)


class AttentionFusion(nn.Module):
    """Channel weights of each stream from its own channel means, normalised over the streams."""

    def __init__(self, streams: int, channels: int):
        super().__init__()
        hidden = max(8, channels // 4)
        self.look = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)) for _ in range(streams)
        )

    def scores(self, streams: Sequence[Tensor]) -> Tensor:
        """(B, S, C), before the softmax."""
        return torch.stack([look(x.mean((2, 3))) for look, x in zip(self.look, streams, strict=True)], dim=1)

    def forward(self, streams: Sequence[Tensor]) -> Tensor:
        """Streams of the same shape (B, C, h, w) to one."""
        return weighted_sum(streams, self.scores(streams))


def align(dense: Tensor, wide: Tensor, meeting: int) -> tuple[Tensor, Tensor]:
    """The segmentation map (B, C1, H1, W1) and the classification map (B, C2, H2, W2) at H = meeting * H2."""
    size = (meeting * wide.shape[-2], meeting * wide.shape[-1])
    pooled = F.avg_pool2d(dense, (dense.shape[-2] // size[0], dense.shape[-1] // size[1]))
    return pooled, F.interpolate(wide, size=size, mode="bilinear", align_corners=False)


def outer_sum(dense: Tensor, wide: Tensor) -> Tensor:
    """Eq. 1-3: sum over locations of f_s f_c^T. (B, C1, H, W) and (B, C2, H, W) to (B, C1 * C2)."""
    return torch.bmm(dense.flatten(2), wide.flatten(2).transpose(1, 2)).flatten(1)


def root_unit(x: Tensor) -> Tensor:
    """Eq. 4-5: signed square root, then unit length. (B, D) to (B, D); a zero vector stays zero."""
    x = x.float()
    return F.normalize(x.sign() * (x.abs() + ROOT_FLOOR).sqrt(), dim=1)


class BilinearJoin(nn.Module):
    """Eq. 1-5 and a linear layer: the final image label's logit."""

    def __init__(self, dense: int, wide: int):
        super().__init__()
        self.head = nn.Linear(dense * wide, 1)

    def forward(self, dense: Tensor, wide: Tensor) -> Tensor:
        """Aligned maps (B, C1, H, W) and (B, C2, H, W) to (B,)."""
        return self.head(root_unit(outer_sum(dense, wide))).squeeze(1)  # type: ignore[no-any-return]


class SumJoin(nn.Module):
    """Table III's direct summation: 1x1 convolutions to one width (**reading**: C1), sum, global mean, linear."""

    def __init__(self, dense: int, wide: int):
        super().__init__()
        self.from_dense, self.from_wide = nn.Conv2d(dense, dense, 1), nn.Conv2d(wide, dense, 1)
        self.head = nn.Linear(dense, 1)

    def forward(self, dense: Tensor, wide: Tensor) -> Tensor:
        """Aligned maps (B, C1, H, W) and (B, C2, H, W) to (B,)."""
        both = self.from_dense(dense) + self.from_wide(wide)
        return self.head(both.mean((2, 3))).squeeze(1)  # type: ignore[no-any-return]


class ConcatJoin(nn.Module):
    """The concatenation that section III-B names beside summation: global means side by side, linear."""

    def __init__(self, dense: int, wide: int):
        super().__init__()
        self.head = nn.Linear(dense + wide, 1)

    def forward(self, dense: Tensor, wide: Tensor) -> Tensor:
        """Aligned maps (B, C1, H, W) and (B, C2, H, W) to (B,)."""
        return self.head(torch.cat([dense.mean((2, 3)), wide.mean((2, 3))], dim=1)).squeeze(1)  # type: ignore[no-any-return]
