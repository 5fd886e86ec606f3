"""Decoder blocks: up-sample, join a skip, convolve; and channel attention that one level lends to another.

The forgery localisation module (FLM, figure 4) and the cross-level attentional feature fusion module (CLAFFM, figure
3) of Leng, Fei and Dai, "Learnable Local Similarity for Face Forgery Detection and Localization", section III.C. The
text gives the blocks' order, no widths.

Deviations:
- **reading**: CLAFFM's "previous feature" B is what entered the decoder stage whose outcome is A ("localization feature
  information at various levels in the forgery localization module"); `attention: skip` takes the encoder's skip instead
  (the overview says that it "connects the encoder and decoder").
- **reading**: the 4 x 4 convolution has a quarter of A's channels ("a very tiny amount of calculation") and a ReLU.
- **reading**: a stage convolves once, 3 x 3 with batch normalisation and ReLU, before the attention; bilinear
  up-sampling to the skip's size; the last stage's map is up-sampled to the picture.

Axes: B faces, C channels, h, w height and width of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.scenarios.errors import FFDError

SIDE = 4  # of CLAFFM's pooled map, and of its convolution's kernel


class CrossLevelAttention(nn.Module):
    """CLAFFM: channel weights in 0..1, read from a feature B, multiply a feature A."""

    def __init__(self, channels: int, previous: int):
        super().__init__()
        inner = max(8, channels // 4)
        self.squeeze = nn.Conv2d(previous, inner, SIDE)
        self.excite = nn.Conv2d(inner, channels, 1)

    def weights(self, previous: Tensor) -> Tensor:
        """B (B, C_b, h_b, w_b) to the weights of A's channels (B, C_a, 1, 1)."""
        pooled = F.adaptive_avg_pool2d(previous, SIDE)
        return torch.sigmoid(self.excite(torch.relu(self.squeeze(pooled))))

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """A (B, C_a, h, w) times the weights that B gives its channels."""
        return current * self.weights(previous)


class DecoderStage(nn.Module):
    """One step of the FLM: up-sample to the skip, concatenate, convolve, weigh the channels."""

    def __init__(self, channels: int, skip: int, width: int, attention: str):
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(channels + skip, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.from_skip = attention == "skip"
        source = skip if self.from_skip else channels
        self.attention = None if attention == "none" else CrossLevelAttention(width, source)

    def forward(self, previous: Tensor, skip: Tensor) -> Tensor:
        """(B, C, h', w') and the skip (B, C_s, h, w) to (B, width, h, w)."""
        side = (skip.shape[2], skip.shape[3])
        raised = F.interpolate(previous, size=side, mode="bilinear", align_corners=False)
        mixed: Tensor = self.mix(torch.cat([raised, skip], dim=1))
        if self.attention is None:
            return mixed
        return self.attention(mixed, skip if self.from_skip else previous)  # type: ignore[no-any-return]


class LocalisationModule(nn.Module):
    """The FLM: from the coarsest map upwards, one stage for each of the next finer levels, then the mask's logits."""

    def __init__(self, channels: Sequence[int], widths: Sequence[int], attention: str):
        """`channels` of the encoder's levels, finest first; `widths` of the stages, coarsest first.

        Raises FFDError where there are more stages than skips, or an attention that is not known.
        """
        super().__init__()
        if attention not in ("stage", "skip", "none"):
            raise FFDError(f"learner.attention must be 'stage', 'skip' or 'none', not {attention!r}.")
        if not 1 <= len(widths) < len(channels):
            raise FFDError(
                f"learner.widths={list(widths)}: the backbone has {len(channels)} levels, so the decoder has 1 to "
                f"{len(channels) - 1} stages, each with a width."
            )
        self.stages = nn.ModuleList()
        coming = channels[-1]
        for skip, width in zip(reversed(channels[:-1]), widths, strict=False):
            self.stages.append(DecoderStage(coming, skip, width, attention))
            coming = width
        self.mask = nn.Conv2d(coming, 1, 1)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The encoder's maps, finest first, to the decoder's last map (B, width, h, w) and mask logits (B, 1, h, w)."""
        current = levels[-1]
        for stage, skip in zip(self.stages, reversed(levels[:-1]), strict=False):
            current = stage(current, skip)
        return current, self.mask(current)


def mask_loss(logits: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """Equation 6: mean binary cross-entropy of mask logits (B, 1, h, w), up-sampled to the mask (B, 1, S, S) in 0..1.

    known (B,) bool: faces whose mask is unknown take no part; 0 where no mask is known. A mask is binarised at one half
    (a view's interpolation blurs its border).
    """
    if not bool(known.any()):
        return logits.sum() * 0.0
    side = (mask.shape[2], mask.shape[3])
    raised = F.interpolate(logits[known], size=side, mode="bilinear", align_corners=False)
    return F.binary_cross_entropy_with_logits(raised, (mask[known] > 0.5).to(raised.dtype))
