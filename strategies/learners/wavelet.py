"""Wavelet dual-branch. Jia et al., "Inconsistency-Aware Wavelet Dual-Branch Network for Face Forgery Detection", IEEE
Transactions on Biometrics, Behavior, and Identity Science, 2021.

Stationary wavelet sub-bands enter beside the picture (swd.py); two HRNets of one architecture with weights of their own
(hrnet.py) label pixels and the whole image; bilinear pooling of their last features gives the final label
(bilinear.py). Loss (Eq. 6): L = L_cls + a1 L_bilinear + a2 L_seg, binary cross-entropies, a1 = a2 = 1.

Deviations: at a change of the learning rate the paper goes back to the weights that were best on validation; here
training goes on (a learner never sees validation). Synchronised normalisation across GPUs: one device.
**Reading**: all four sub-bands of all three levels enter (36 channels of RGB), made of the picture standardised by
HRNet's ImageNet mean and deviation; L_seg is the mean over pixels at the picture's size, the logits interpolated
(bilinear), over faces whose mask is known: a real face's is empty, a forged face without a mask adds nothing; f_s and
f_c meet at twice f_c's side (14 x 14 of 56 x 56 and 7 x 7 at 224 pixels). The bilinear vector has C1 * C2 = 270 * 2,048
entries in W18, as many as its linear layer has weights (0.55 M): 283 MB for 128 faces, of a forward pass's many GB.
Axes: B faces, S pixels a side (a multiple of 32), C1, C2 channels of the two branches' last features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Learner, Losses, Output
from ffd_continual.strategies.learners.bilinear import BilinearJoin, ConcatJoin, SumJoin, align
from ffd_continual.strategies.learners.hrnet import STRIDE, ClassificationBranch, SegmentationBranch
from ffd_continual.strategies.learners.swd import SWD

JOINS = {"bilinear": BilinearJoin, "sum": SumJoin, "concat": ConcatJoin}


@dataclass(frozen=True)
class WaveletConfig:
    """The paper's model; the rows of its Tables III and IV are settings of it."""

    backbone: str = "hrnet_w18"  # of both branches; Table III also tries hrnet_w32
    weights: str = "timm"  # "timm" (ImageNet, downloads; the paper's), "none" (random)
    wavelet: str = "haar"  # "haar" or "rbioN.M" (swd.py); "none": no wavelet stream
    levels: int = 3  # of the decomposition
    fusion: str = "attention"  # of the two stems: "attention" (channel weights), "sum"
    dual: bool = True  # off: the classification branch alone
    join: str = "bilinear"  # of the branches: "bilinear", "sum" (1x1 convolutions, Table III), "concat"
    meeting: int = 2  # side of the maps that are joined, in f_c's sides: 1, 2, 4 or 8
    bilinear_weight: float = 1.0  # a1, of the joined label's loss
    segmentation_weight: float = 1.0  # a2


def segmentation_loss(logits: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """L_seg: binary cross-entropy, mean over pixels and over faces with a known mask; 0 when there is none.

    logits (B, 1, h, w), mask (B, 1, S, S) in 0..1, known (B,) bool.
    """
    if not bool(known.any()):
        return logits.sum() * 0.0
    full = F.interpolate(logits[known].float(), size=mask.shape[-2:], mode="bilinear", align_corners=False)
    return F.binary_cross_entropy_with_logits(full, mask[known])


class Wavelet(Learner):
    """Two HRNet branches with wavelet streams; z is the joined label, or the classification branch's alone."""

    config_type = WaveletConfig

    def __init__(self, config: WaveletConfig):
        super().__init__()
        if config.fusion not in ("attention", "sum"):
            raise FFDError(f"learner.fusion must be 'attention' or 'sum', not {config.fusion!r}.")
        if config.join not in JOINS:
            raise FFDError(f"learner.join must be one of {', '.join(JOINS)}, not {config.join!r}.")
        if config.meeting not in (1, 2, 4, 8):
            raise FFDError(f"learner.meeting must be 1, 2, 4 or 8 (f_c at 1/32, f_s at 1/4), not {config.meeting}.")
        self.config = config
        self.swd = None if config.wavelet == "none" else SWD(config.wavelet, config.levels)
        bands = 0 if self.swd is None else 3 * self.swd.bands_per_colour
        parts = (config.backbone, config.weights, bands, config.fusion)
        self.classification = ClassificationBranch(*parts)
        self.segmentation = SegmentationBranch(*parts) if config.dual else None
        self.join: nn.Module | None = None
        if self.segmentation is not None:
            self.join = JOINS[config.join](self.segmentation.channels, self.classification.channels)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(self.classification.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.classification.std).view(1, 3, 1, 1), persistent=False)

    @property
    def needs(self) -> frozenset[str]:
        """Masks, for the segmentation branch."""
        return frozenset({"mask"}) if self.config.dual else frozenset()

    def forward(self, images: Tensor) -> Output:
        """(B, 3, S, S) in 0..1 to z, "common" (B, C2), "z_classification" (B,) and the map "trace" (B, 1, S/4, S/4)."""
        side = images.shape[-2:]
        if side[0] % STRIDE or side[1] % STRIDE:
            raise FFDError(
                f"learner wavelet: pictures of {side[0]} x {side[1]} pixels; HRNet's four resolutions fit together at "
                f"multiples of {STRIDE} only. Set scenario.size to {max(1, side[0] // STRIDE) * STRIDE}, say."
            )
        x = (images - self.mean) / self.std
        bands = None if self.swd is None else self.swd(x)
        wide = self.classification(x, bands)
        z_classification = self.classification.judge(wide)
        features = {"common": wide.mean((2, 3)), "z_classification": z_classification}
        if self.segmentation is None or self.join is None:
            return Output(z_classification, features)
        dense = self.segmentation(x, bands)
        z = self.join(*align(dense, wide, self.config.meeting))
        return Output(z, features, {"trace": self.segmentation.judge(dense)})

    def step(self, batch: Batch) -> tuple[Output, Losses]:
        """Eq. 6; "joined" is L_bilinear (or that of its rival)."""
        out, target = self(batch.image), batch.target.float()
        own = F.binary_cross_entropy_with_logits(out.features["z_classification"].float(), target)
        losses = {"classification": own}
        if self.config.dual:
            joined = F.binary_cross_entropy_with_logits(out.z.float(), target)
            found = segmentation_loss(out.maps["trace"], batch.mask, batch.mask_known)
            losses["joined"] = self.config.bilinear_weight * joined
            losses["segmentation"] = self.config.segmentation_weight * found
        return out, losses
