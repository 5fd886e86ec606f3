"""Learnable local similarity: is a cell of the face forged where another is not? Leng, Fei and Dai, "Learnable Local
Similarity for Face Forgery Detection and Localization", section III.B, equations 1 to 5.

The paper slides one kernel of size 2 x 1 x C over every pair of local features stacked on top of each other, which
needs L^2 * 2C numbers a face and is the limit it names. The kernel of a pair is a sum, W1 F_i + W2 F_j + b, so two
products of L cells and one broadcast sum give the same map.

Deviations:
- The paper's "shallow ConvNet with a single kernel" gives the logit w1 F_i + w2 F_j + b, the sum of a row's and a
  column's number, which cannot say "these two differ" (an exclusive or). `hidden` d > 1 gives the kernel d outputs,
  a ReLU and a 1 x 1 convolution to one channel; d = 1 is the paper's single kernel. Whichever it is, both ways of
  computing the map here have the same parameters.
- **reading**: the mask is brought to H x W by area averaging, and a cell is forged where more than `share` of it is;
  so the absolute difference of equation 4 is binary already.
- A face whose mask is unknown takes no part; the mean of equation 5 is over the pairs of the others.
Note that the map is 1 where two cells *differ* (equation 4), whatever its name says.

Axes: B faces, C channels, H, W height and width of the map, L = H * W cells in row-major order, d hidden channels,
S pixels a side of the mask.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

#: The 1 x 1 convolution after the hidden layer as weight (1, d) and bias (1,); None where d = 1.
Point = tuple[Tensor, Tensor] | None
#: How many numbers of the (B, rows, L, d) hidden layer are alive at a time, by default: 4 MiB in float32.
BLOCK = 2**20


def binary_cells(mask: Tensor, size: tuple[int, int], share: float = 0.5) -> Tensor:
    """Masks (B, 1, S, S) in 0..1 to m' (B, L) of zeros and ones: more than `share` of the cell is forged."""
    return (F.adaptive_avg_pool2d(mask, size).flatten(1) > share).to(mask.dtype)


def pair_targets(cells: Tensor) -> Tensor:
    """Equations 3 and 4: m' (B, L) to M^GT (B, L, L), 1 where one of the two cells is forged and the other is not."""
    return (cells[:, :, None] - cells[:, None, :]).abs()


def literal_map(features: Tensor, kernel: Tensor, bias: Tensor, point: Point = None) -> Tensor:
    """Equation 1 before the sigmoid, as the paper says it: convolve all stacked pairs.

    features (B, C, H, W), kernel (d, C, 2, 1), bias (d,). Gives (B, L, L).
    Needs B * 2 * C * L^2 numbers; it is the reference of `pair_map`.
    """
    flat = features.flatten(2)
    cells = flat.shape[2]
    first = flat[:, :, :, None].expand(-1, -1, -1, cells)
    second = flat[:, :, None, :].expand(-1, -1, cells, -1)
    stacked = torch.stack([first, second], dim=2).flatten(3)  # (B, C, 2, L^2)
    hidden = F.conv2d(stacked, kernel, bias)  # (B, d, 1, L^2)
    if point is not None:
        hidden = F.conv2d(torch.relu(hidden), point[0][:, :, None, None], point[1])
    return hidden.view(-1, cells, cells)


def project(features: Tensor, kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Both halves of the kernel on every cell: W1 F_i + b and W2 F_j, each (B, L, d)."""
    flat = features.flatten(2).transpose(1, 2)
    return flat @ kernel[:, :, 0, 0].T + bias, flat @ kernel[:, :, 1, 0].T


def pair_map(first: Tensor, second: Tensor, point: Point) -> Tensor:
    """Logits of the pairs of R rows with L columns: `project`'s halves (B, R, d) and (B, L, d) to (B, R, L)."""
    hidden = first[:, :, None, :] + second[:, None, :, :]
    return (hidden if point is None else F.linear(torch.relu(hidden), *point)).squeeze(3)


def _block_loss(first: Tensor, second: Tensor, point: Point, rows: Tensor, cells: Tensor) -> Tensor:
    logits = pair_map(first, second, point)
    target = (rows[:, :, None] - cells[:, None, :]).abs().to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum")


def pair_loss(first: Tensor, second: Tensor, point: Point, cells: Tensor, block: int = BLOCK) -> Tensor:
    """Equation 5: the mean binary cross-entropy of all pairs of all faces against `pair_targets`.

    first, second (B, L, d) of `project`, cells (B, L). Row blocks of about `block` hidden numbers are recomputed in the
    backward pass, so that no (B, L, L) tensor ever exists; one block alone is not recomputed.
    """
    faces, count, width = second.shape
    rows = max(1, block // (faces * count * width))
    total = first.new_zeros(())
    for part, marks in zip(torch.split(first, rows, 1), torch.split(cells, rows, 1), strict=True):
        inputs = (part, second, point, marks, cells)
        if rows >= count or not torch.is_grad_enabled():
            total = total + _block_loss(*inputs)
        else:
            total = total + checkpoint(_block_loss, *inputs, use_reentrant=False, preserve_rng_state=False)
    return total / (faces * count * count)


class LocalSimilarity(nn.Module):
    """The learnable local similarity module (LLSM): logits of all pairs of cells of a map, or their loss."""

    def __init__(self, channels: int, hidden: int, share: float = 0.5, block: int = BLOCK):
        super().__init__()
        self.share, self.block = share, block
        self.pair = nn.Conv2d(channels, hidden, (2, 1))
        self.point = nn.Conv2d(hidden, 1, 1) if hidden > 1 else None

    def _last(self) -> Point:
        return None if self.point is None else (self.point.weight.flatten(1), cast(Tensor, self.point.bias))

    def _halves(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return project(features, self.pair.weight, cast(Tensor, self.pair.bias))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W) to logits (B, L, L): larger where the cells differ."""
        return pair_map(*self._halves(features), self._last())

    def loss(self, features: Tensor, mask: Tensor, known: Tensor) -> Tensor:
        """Features (B, C, H, W) against masks (B, 1, S, S) in 0..1; known (B,) bool. 0 where no mask is known."""
        if not bool(known.any()):
            return features.sum() * 0.0
        cells = binary_cells(mask[known], (features.shape[2], features.shape[3]), self.share)
        return pair_loss(*self._halves(features[known]), self._last(), cells, self.block)
