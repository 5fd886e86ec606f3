"""HRNet with an open stem: pictures and their wavelet sub-bands enter by a stem each and are fused before stage 1.

Source: Jia et al., IEEE TBIOM 2021, section III-C and Fig. 7; HRNet of Sun et al., CVPR 2019, through timm. "The same
stem module and high-resolution module as the original HRNet. For the wavelet input branch, we only adjust the number
of channels": the wavelet stem is HRNet's (two 3x3 convolutions of stride 2) with the sub-bands as input channels. The
heads are HRNet's own: classification widens each resolution and adds them downwards (2,048 channels at 1/32);
segmentation brings all resolutions to 1/4, concatenates them and mixes them by a 1x1 convolution (270 channels in W18).
With weights=timm all but the wavelet stem and what follows the segmentation's concatenation start from ImageNet.
Axes: B faces, S pixels a side, K sub-band channels, C channels; map i of four has C_i channels at S / 2^(i+2).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.bilinear import AttentionFusion

#: Pictures' sides are multiples of this: four resolutions, each half of the one before, are brought together.
STRIDE = 32


def load_hrnet(backbone: str, weights: str) -> Any:
    """A timm HRNet. Raises FFDError on another model, other weights, or weights that cannot be had."""
    import timm  # two seconds: only who builds a network waits for it

    known = timm.list_models("hrnet_*")
    if backbone not in known:
        raise FFDError(f"learner.backbone: wavelet reads HRNet's four resolutions, one of {', '.join(known)}.")
    if weights not in ("timm", "none"):
        raise FFDError(
            f"learner.weights must be 'timm' (downloads ImageNet weights) or 'none' (random), not {weights!r}."
        )
    try:
        return timm.create_model(backbone, pretrained=weights == "timm", num_classes=0)
    except (OSError, RuntimeError) as error:
        raise FFDError(
            f"learner.weights=timm: the ImageNet weights of {backbone} cannot be loaded ({type(error).__name__}). "
            "Connect once to fetch them, or set learner.weights=none to start from random ones."
        ) from error


def new_stem(channels: int, width: int, out: int) -> nn.Sequential:
    """HRNet's stem with another number of input channels, initialised as HRNet is."""
    stem = nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        nn.Conv2d(width, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True),
    )  # fmt: skip
    for layer in (stem[0], stem[3]):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
    return stem


class HRStages(nn.Module):
    """Stem (or two stems and their fusion) and the high-resolution stages: four maps."""

    def __init__(self, model: Any, bands: int, fusion: str):
        super().__init__()
        self.stem = nn.Sequential(model.conv1, model.bn1, model.act1, model.conv2, model.bn2, model.act2)
        width, out = model.conv1.out_channels, model.conv2.out_channels
        self.wave_stem = new_stem(bands, width, out) if bands else None
        self.fusion = AttentionFusion(2, out) if bands and fusion == "attention" else None
        self.layer1, self.transition1, self.stage2 = model.layer1, model.transition1, model.stage2
        self.transition2, self.stage3 = model.transition2, model.stage3
        self.transition3, self.stage4 = model.transition3, model.stage4
        # The last block of each resolution, before any head.
        self.channels = tuple(int(branch[-1].conv2.out_channels) for branch in model.stage4[-1].branches)

    def enter(self, images: Tensor, bands: Tensor | None) -> Tensor:
        """Standardised pictures (B, 3, S, S) and sub-bands (B, K, S, S) to stem features (B, 64, S/4, S/4)."""
        seen: Tensor = self.stem(images)
        if self.wave_stem is None or bands is None:
            return seen
        waves: Tensor = self.wave_stem(bands)
        if self.fusion is None:
            return seen + waves
        fused: Tensor = self.fusion([seen, waves])
        return fused

    def forward(self, images: Tensor, bands: Tensor | None) -> list[Tensor]:
        """The four maps, finest first."""
        x = self.layer1(self.enter(images, bands))
        maps: list[Tensor] = self.stage2([change(x) for change in self.transition1])
        for transition, stage in ((self.transition2, self.stage3), (self.transition3, self.stage4)):
            # A resolution that goes on as it is has an Identity; the one that is new comes from the coarsest.
            maps = stage(
                [
                    maps[i] if isinstance(change, nn.Identity) else change(maps[-1])
                    for i, change in enumerate(transition)
                ]
            )
        return maps


class ClassificationBranch(nn.Module):
    """Whole-image label: HRNet with its classification head, one logit."""

    def __init__(self, backbone: str, weights: str, bands: int, fusion: str):
        super().__init__()
        model = load_hrnet(backbone, weights)
        self.stages = HRStages(model, bands, fusion)
        self.widen, self.down, self.last = model.incre_modules, model.downsamp_modules, model.final_layer
        self.channels = int(model.num_features)
        cfg = model.pretrained_cfg
        self.mean, self.std = tuple(cfg["mean"]), tuple(cfg["std"])  # of the pictures that the weights expect
        self.head = nn.Linear(self.channels, 1)

    def forward(self, images: Tensor, bands: Tensor | None) -> Tensor:
        """The wide map f_c (B, C2, S/32, S/32): the last features before the classification layer."""
        maps = self.stages(images, bands)
        y: Tensor = self.widen[0](maps[0])
        for i, down in enumerate(self.down):
            y = self.widen[i + 1](maps[i + 1]) + down(y)
        wide: Tensor = self.last(y)
        return wide

    def judge(self, wide: Tensor) -> Tensor:
        """f_c to the branch's own logit (B,)."""
        logit: Tensor = self.head(wide.mean((2, 3))).squeeze(1)
        return logit


class SegmentationBranch(nn.Module):
    """Pixel labels: HRNet with its segmentation head, one logit a location."""

    def __init__(self, backbone: str, weights: str, bands: int, fusion: str):
        super().__init__()
        self.stages = HRStages(load_hrnet(backbone, weights), bands, fusion)
        self.channels = sum(self.stages.channels)
        mix = nn.Conv2d(self.channels, self.channels, 1)
        self.mix = nn.Sequential(mix, nn.BatchNorm2d(self.channels), nn.ReLU(inplace=True))
        self.point = nn.Conv2d(self.channels, 1, 1)
        nn.init.kaiming_normal_(mix.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor, bands: Tensor | None) -> Tensor:
        """The dense map f_s (B, C1, S/4, S/4): the last features before the segmentation layer."""
        maps = self.stages(images, bands)
        size = maps[0].shape[-2:]
        rest = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps[1:]]
        dense: Tensor = self.mix(torch.cat([maps[0], *rest], dim=1))
        return dense

    def judge(self, dense: Tensor) -> Tensor:
        """f_s to logits (B, 1, S/4, S/4): forged here?"""
        logits: Tensor = self.point(dense)
        return logits
