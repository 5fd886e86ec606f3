"""Frozen encoders that say which faces look alike, whatever was done to them: their features are clustered, and
Guide-Space's decoupling (Guo et al., ICCV 2023, Eq. 7-8) works on the clusters.

Three kinds: "trunk", an ImageNet backbone as it is; "timm", any backbone of timm by name (self-supervised ones among
them, e.g. vit_base_patch16_224.mae) or with weights from a safetensors file; "mim", masked-image modelling on the
faces at hand after SimMIM (Xie et al., CVPR 2022): random square patches are covered, the encoder with one linear layer
predicts the covered pixels, the loss is L1 on those alone.
Deviations: the paper takes an encoder that SimMIM trained on face pictures at large, with no weights published; "mim"
trains briefly on the first experience's faces and never again; convolutions see a learnt colour in place of a
learnt token. Axes: B faces, S pixels a side, F features, s pixels a location of the encoder's map.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.trunk import Trunk, TrunkConfig

KINDS = ("trunk", "timm", "mim")


@dataclass(frozen=True)
class EncoderConfig:
    """Which encoder the clusters come from; `trunk` none: the learner's own backbone and weights."""

    kind: str = "trunk"  # "trunk", "timm", "mim"
    trunk: TrunkConfig | None = None  # of "trunk", and what "mim" starts from
    model: str = ""  # of "timm"
    file: str = ""  # of "timm": a safetensors file for the model; empty: timm's hub
    size: int = 0  # pixels a side that faces are shown at; 0: as they come
    mim_stages: int = 6  # of the trunk, so that a location is not larger than a patch (lite0: 16 pixels)
    mim_patch: int = 16  # pixels a side of a covered patch (SimMIM: 32 at 192)
    mim_share: float = 0.6  # of the patches that are covered (SimMIM: 0.6)
    mim_steps: int = 200
    mim_batch: int = 32
    mim_lr: float = 1e-3
    mim_faces: int = 2048  # it learns from the first so many faces


class FaceEncoder(nn.Module):
    """Pictures (B, 3, S, S) in 0..1 to unit features (B, F), without gradient, always the same."""

    def __init__(self, title: str, size: int):
        super().__init__()
        self.title, self.size = title, size

    def train(self, mode: bool = True) -> FaceEncoder:
        """Stays in evaluation mode."""
        return super().train(False)

    @property
    def ready(self) -> bool:
        """False while it has to `learn` first."""
        return True

    def side(self, given: int) -> int:
        """Pixels a side that pictures of `given` pixels are shown at."""
        return self.size or given

    def shrink(self, images: Tensor) -> Tensor:
        """Pictures at the encoder's size."""
        side = self.side(images.shape[-1])
        if images.shape[-1] == side:
            return images
        return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)

    def learn(self, pictures: Tensor) -> None:
        """Train on bytes (N, 3, S, S), at the encoder's size."""

    def pooled(self, images: Tensor) -> Tensor:
        """(B, F) before they are brought to unit length."""
        raise TypeError(f"{type(self).__name__} pools nothing")

    def forward(self, images: Tensor) -> Tensor:
        """(B, F) of unit length."""
        with torch.no_grad():
            return F.normalize(self.pooled(self.shrink(images)), dim=1)


class TrunkEncoder(FaceEncoder):
    """An ImageNet backbone, mean of its last map."""

    def __init__(self, config: TrunkConfig, size: int):
        words = {"none": "random weights", "package": "ImageNet weights (package)", "timm": "timm's weights"}
        super().__init__(f"{config.backbone}, {words.get(config.weights, config.weights)}", size)
        self.trunk = Trunk(replace(config, frozen_stages=0)).requires_grad_(False).eval()

    def pooled(self, images: Tensor) -> Tensor:
        """(B, C)."""
        return self.trunk(images).mean((2, 3))  # type: ignore[no-any-return]


class TimmEncoder(FaceEncoder):
    """Any timm model at its own input size, with its own pooling."""

    def __init__(self, model: str, file: str, size: int):
        import timm  # two seconds: only who builds a network waits for it

        super().__init__(f"{model}, {Path(file).name if file else 'weights of timm hub'}", size)
        if not timm.is_model(model):
            raise FFDError(f"learner.encoder.model: timm has no model {model!r}; `kind: timm` needs one by name.")
        self.model: Any = timm.create_model(model, pretrained=not file, num_classes=0)
        if file:
            self._load(file)
        self.model.requires_grad_(False).eval()
        cfg: Any = self.model.pretrained_cfg
        self.size = size or int(cfg["input_size"][-1])
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(cfg["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(cfg["std"]).view(1, 3, 1, 1))

    def _load(self, file: str) -> None:
        try:
            stored = load_file(file)
        except (OSError, SafetensorError) as error:
            raise FFDError(f"learner.encoder.file: {file} is no readable safetensors file ({error}).") from error
        own = self.model.state_dict()
        missing = [name for name, value in own.items() if name not in stored or stored[name].shape != value.shape]
        if missing:
            raise FFDError(
                f"learner.encoder.file: {file} lacks {len(missing)} of the {len(own)} tensors of the model, first "
                f"{missing[0]!r}. It must hold the backbone under timm's names."
            )
        self.model.load_state_dict({name: stored[name] for name in own})

    def pooled(self, images: Tensor) -> Tensor:
        """(B, F)."""
        features: Tensor = self.model((images - self.mean) / self.std)
        return features


def patch_mask(count: int, side: int, patch: int, share: float, generator: torch.Generator) -> Tensor:
    """(count, 1, side, side) bool: ceil(share * n) of the n patches of each picture, drawn without replacement."""
    row = side // patch
    covered = math.ceil(share * row * row)
    order = torch.rand(count, row * row, generator=generator).argsort(dim=1)
    flat = torch.zeros(count, row * row, dtype=torch.bool).scatter_(1, order[:, :covered], True)
    return flat.view(count, 1, row, row).repeat_interleave(patch, 2).repeat_interleave(patch, 3)


def masked_error(predicted: Tensor, pictures: Tensor, mask: Tensor) -> Tensor:
    """SimMIM's loss: mean |predicted - pictures| over covered pixels and channels; (B, 3, S, S), mask (B, 1, S, S)."""
    gap = (predicted - pictures).abs() * mask
    return gap.sum() / (mask.sum() * pictures.shape[1]).clamp_min(1)


class MaskedEncoder(FaceEncoder):
    """Masked-image modelling on the faces at hand; the mean of the encoder's map is the feature."""

    learnt: Tensor
    errors: Tensor

    def __init__(self, config: EncoderConfig, start: TrunkConfig):
        super().__init__("masked-image modelling", config.size)
        if config.mim_steps < 1 or not 0.0 < config.mim_share < 1.0:
            raise FFDError("learner.encoder: mim_steps must be 1 or more and mim_share between 0 and 1.")
        self.config = config
        self.trunk = Trunk(replace(start, frozen_stages=0))
        self.trunk.high = self.trunk.high[: config.mim_stages]
        with torch.no_grad():
            self.trunk.eval()
            shape = self.trunk(torch.zeros(1, 3, 64, 64)).shape
        self.stride = 64 // shape[-1]
        self.cover = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.decode = nn.Conv2d(shape[1], 3 * self.stride**2, 1)
        self.register_buffer("learnt", torch.zeros((), dtype=torch.bool))
        self.register_buffer("errors", torch.zeros(2))  # on held-out faces, before and after
        self.requires_grad_(False)

    @property
    def ready(self) -> bool:
        """Once it has learnt."""
        return bool(self.learnt)

    def side(self, given: int) -> int:
        """A whole number of patches and of locations."""
        unit = math.lcm(self.config.mim_patch, self.stride)
        return max(unit, super().side(given) // unit * unit)

    def pooled(self, images: Tensor) -> Tensor:
        """(B, C)."""
        return self.trunk(images).mean((2, 3))  # type: ignore[no-any-return]

    def rebuild(self, pictures: Tensor, mask: Tensor) -> Tensor:
        """Normalised pictures (B, 3, S, S) from what the mask leaves of them."""
        seen = torch.where(mask, self.cover, pictures)
        return F.pixel_shuffle(self.decode(self.trunk.high(seen)), self.stride)

    def _error(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        values = (pictures.float() / 255.0).to(self.cover.device)
        values = (values - self.trunk.mean) / self.trunk.std
        mask = patch_mask(len(values), values.shape[-1], self.config.mim_patch, self.config.mim_share, generator)
        mask = mask.to(values.device)
        return masked_error(self.rebuild(values, mask), values, mask)

    def _held_out_error(self, pictures: Tensor) -> Tensor:
        self.trunk.eval()
        generator = torch.Generator().manual_seed(0)  # the same masks before and after
        size = self.config.mim_batch
        parts = [pictures[i : i + size] for i in range(0, len(pictures), size)]
        with torch.no_grad():
            return torch.stack([self._error(p, generator) * len(p) for p in parts]).sum() / len(pictures)

    def learn(self, pictures: Tensor) -> None:
        """AdamW for `mim_steps` steps; every tenth face is held out and measured before and after."""
        config = self.config
        held = torch.arange(len(pictures)) % 10 == 9
        train, test = (pictures[~held], pictures[held]) if bool(held.any()) else (pictures, pictures)
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        before = self._held_out_error(test)
        self.requires_grad_(True)
        optimizer = torch.optim.AdamW(self.parameters(), lr=config.mim_lr, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.mim_lr, total_steps=config.mim_steps + 1)
        with torch.enable_grad():
            self.trunk.train()
            for _ in range(config.mim_steps):
                chosen = torch.randint(len(train), (min(config.mim_batch, len(train)),), generator=generator)
                loss = self._error(train[chosen], generator)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        self.requires_grad_(False)
        self.errors.copy_(torch.stack([before, self._held_out_error(test)]))
        self.learnt.fill_(True)
        print(
            f"masked-image modelling, {config.mim_steps} steps on {len(train)} faces: error on {len(test)} held-out "
            f"faces {float(self.errors[0]):.3f} -> {float(self.errors[1]):.3f} (deviations of a pixel)"
        )


def build_encoder(config: EncoderConfig, own: TrunkConfig) -> FaceEncoder:
    """The configured encoder; `own` is the learner's backbone. Raises FFDError on an unknown kind."""
    if config.kind == "trunk":
        return TrunkEncoder(config.trunk or own, config.size)
    if config.kind == "timm":
        return TimmEncoder(config.model, config.file, config.size)
    if config.kind == "mim":
        return MaskedEncoder(config, config.trunk or own)
    raise FFDError(f"learner.encoder.kind must be one of {', '.join(KINDS)}, not {config.kind!r}.")


class Encoded(NamedTuple):
    """Some faces, and their features (B, F)."""

    row: Tensor
    forgery: Tensor
    experience: Tensor
    features: Tensor


def encode_faces(encoder: FaceEncoder, faces: Iterable[Batch], most: int) -> Iterator[Encoded]:
    """Features of all faces, batch by batch; an encoder that is not ready first learns from the first `most`."""
    held: list[Encoded] = []  # with pictures as bytes in place of features: a quarter of the memory

    def release() -> Iterator[Encoded]:
        if held:
            encoder.learn(torch.cat([face.features for face in held]))
        for face in held:
            images = (face.features.float() / 255.0).to(face.row.device)
            yield face._replace(features=encoder(images))
        held.clear()

    for batch in faces:
        if not batch.image.shape[1]:
            raise FFDError("guide_space clusters pictures, and this run keeps features: set train.kept_views to 0.")
        if encoder.ready:
            yield Encoded(batch.row, batch.forgery, batch.experience, encoder(batch.image))
            continue
        pictures = (encoder.shrink(batch.image).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        held.append(Encoded(batch.row, batch.forgery, batch.experience, pictures))
        if sum(len(face.row) for face in held) >= most:
            yield from release()
    yield from release()
