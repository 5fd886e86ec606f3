"""An encoder that gives maps of several levels: any timm backbone that can list its features.

Axes: B faces, S pixels a side, C_l channels, h_l and w_l height and width of level l; level 0 is the finest. A level's
stride is the number of pixels from one of its cells to the next. Weights as in trunk.py: ImageNet's lite0 from the
installed package, any other from timm's hub, or none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.trunk import PACKAGED, check_backbone, packaged_weights


@dataclass(frozen=True)
class PyramidConfig:
    """Which backbone, with which weights, and how much of it stays as it is."""

    backbone: str = PACKAGED
    weights: str = "package"  # "package" (lite0 only), "timm" (downloads), "none" (random)
    frozen_stages: int = 0  # so many of the finest levels, with all they are computed from, never change


def load_packaged(body: nn.Module, full: nn.Module) -> None:
    """Put the packaged ImageNet weights into lite0's feature network.

    The package's tensors have other names: they are paired with `full`, the whole lite0 model, by their order, and
    `body` takes the ones it has by `full`'s names. Raises FFDError where a shape does not fit.
    """
    theirs = list(packaged_weights().values())
    names = [name for name in full.state_dict() if not name.startswith("classifier.")]
    paired = dict(zip(names, theirs, strict=False))
    own = body.state_dict()
    if any(name not in paired or paired[name].shape != value.shape for name, value in own.items()):
        raise FFDError("the packaged weights do not fit this timm version's tf_efficientnet_lite0")
    body.load_state_dict({name: paired[name] for name in own})


class Pyramid(nn.Module):
    """Maps of all levels of a timm backbone, finest first."""

    def __init__(self, config: PyramidConfig):
        import timm  # two seconds: only who builds a network waits for it

        super().__init__()
        check_backbone(config.backbone, config.weights)
        # The whole model tells how many levels there are; the feature network lists five of them unless asked.
        full: Any = timm.create_model(config.backbone, pretrained=False, num_classes=0)
        levels = tuple(range(len(getattr(full, "feature_info", ()))))
        try:
            body: Any = timm.create_model(
                config.backbone, pretrained=config.weights == "timm", features_only=True, out_indices=levels
            )
        except (RuntimeError, AssertionError, AttributeError) as error:
            raise FFDError(
                f"learner.trunk.backbone: timm cannot give the levels of {config.backbone!r} as features ({error}). "
                "Choose a model that timm.list_models() shows and that accepts features_only=True, e.g. resnet50."
            ) from error
        if config.weights == "package":
            load_packaged(body, full)
        self.body = body
        self.channels: list[int] = list(body.feature_info.channels())
        self.strides: list[int] = list(body.feature_info.reduction())
        self.channels_first = "NHWC" not in str(getattr(body, "output_fmt", "NCHW"))
        cfg: Any = full.pretrained_cfg
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(cfg["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(cfg["std"]).view(1, 3, 1, 1), persistent=False)
        if not 0 <= config.frozen_stages < len(self.channels):
            raise FFDError(
                f"learner.trunk.frozen_stages={config.frozen_stages}: {config.backbone} has {len(self.channels)} "
                f"levels (strides {self.strides}), so 0 to {len(self.channels) - 1} can be frozen."
            )
        if config.frozen_stages:
            self._freeze(config.frozen_stages, cfg["input_size"][-1] if cfg.get("fixed_input_size") else 64)
        self.train()

    def _freeze(self, levels: int, side: int) -> None:
        """Whatever the last frozen level has a gradient in is part of it: true of any architecture."""
        parameters = list(self.body.parameters())
        self.body.eval()
        with torch.enable_grad():
            top = self(torch.zeros(1, 3, side, side))[levels - 1].sum()
            found = torch.autograd.grad(top, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Pyramid:
        """Frozen modules stay in evaluation mode: their normalisation statistics do not move."""
        super().train(mode)
        for module in self.body.modules():
            own = list(module.parameters())
            if own and not any(p.requires_grad for p in own):
                module.eval()
        return self

    def level_of(self, stride: int) -> int:
        """The last level with this stride. Raises FFDError naming the strides there are."""
        if stride not in self.strides:
            raise FFDError(f"learner.stride={stride}: the backbone's levels have strides {self.strides}; choose one.")
        return len(self.strides) - 1 - self.strides[::-1].index(stride)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Pictures (B, 3, S, S) in 0..1 to the levels' maps [(B, C_l, h_l, w_l), ...], finest first."""
        maps = cast("list[Tensor]", self.body((images - self.mean) / self.std))
        return list(maps) if self.channels_first else [m.permute(0, 3, 1, 2) for m in maps]

    def trained(self) -> Iterator[nn.Parameter]:
        """Parameters that are not frozen."""
        return (p for p in self.body.parameters() if p.requires_grad)
