"""DCL's data views: the four operations of Sun et al., "Dual Contrastive Learning for General Face Forgery Detection",
AAAI 2022, section 3.1, as tensor functions on a batch, and the forged pixels' mask that goes through them.

Axes: B faces, S pixels a side, k patches a side. Pictures (B, 3, S, S) in 0..1, masks (B, 1, S, S) in 0..1.

The paper names the operations and gives no numbers: **reading** throughout. Order: frame shift, mixup, high-frequency
enhancement, patches, so that the enhancement sees no borders of shuffled patches. The mask |x - x_real| is thresholded
(two codings of one picture differ everywhere by a few grey levels) and shuffled as the picture is; mixing a forged face
with its pristine one scales |x - x_real| by the forged share, and with it what passes the threshold. Enhancement moves
nothing and leaves the mask alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError


@dataclass(frozen=True)
class DataViewConfig:
    """Probability of each operation in a view (0 switches it off), and its strength. The paper gives neither."""

    patch: float = 0.5  # RandomPatch: k x k patches in random order
    patches: int = 3  # k
    high_frequency: float = 0.5  # SRM residual added to the picture
    residual: float = 1.0  # its weight
    frame_shift: float = 0.5  # another frame of the same video, where there is one
    mixup: float = 0.5  # forged faces, mixed with their pristine pair, where it is known
    forged_share: float = 0.5  # least share of the forged face in a mixture; up to 1
    changed: float = 0.03  # |x - x_real|, of the full range, from which a pixel counts as forged (8 grey levels)


@dataclass(frozen=True)
class Draw:
    """What one view does to each of B faces; all randomness of a view is here."""

    patch: Tensor  # (B,) bool
    order: Tensor  # (B, k * k) int64: place j of the view shows patch order[j]
    high_frequency: Tensor  # (B,) bool
    frame_shift: Tensor  # (B,) bool
    mixup: Tensor  # (B,) bool
    share: Tensor  # (B,) of the forged face, forged_share .. 1


@dataclass(frozen=True)
class Shown:
    """A view of a batch."""

    image: Tensor  # (B, 3, S, S)
    mask: Tensor  # (B, 1, S, S) 1 where forged; zeros where not known
    known: Tensor  # (B,) bool


def check_data_views(config: DataViewConfig) -> None:
    """Raise FFDError on a probability or strength that cannot be."""
    for name in ("patch", "high_frequency", "frame_shift", "mixup", "forged_share", "changed"):
        if not 0.0 <= getattr(config, name) <= 1.0:
            raise FFDError(f"learner.data_views.{name} must lie in 0..1, not {getattr(config, name)}.")
    if config.patches < 1:
        raise FFDError(f"learner.data_views.patches must be 1 or more, not {config.patches}.")


def draw_data_view(config: DataViewConfig, faces: int, generator: torch.Generator | None = None) -> Draw:
    """Draw one view for B faces, on the CPU, so that every device sees the same; always the same number of draws."""
    chances = torch.rand(faces, 5, generator=generator)
    order = torch.rand(faces, config.patches**2, generator=generator).argsort(dim=1)
    return Draw(
        patch=chances[:, 0] < config.patch,
        order=order,
        high_frequency=chances[:, 1] < config.high_frequency,
        frame_shift=chances[:, 2] < config.frame_shift,
        mixup=chances[:, 3] < config.mixup,
        share=config.forged_share + (1.0 - config.forged_share) * chances[:, 4],
    )


def shuffle_patches(images: Tensor, order: Tensor) -> Tensor:
    """RandomPatch: (B, C, S, S) cut into k x k patches of S // k pixels, place j of face b showing patch order[b, j].

    What S leaves over by k, at the right and below, stays where it is.
    """
    faces, channels, side, _ = images.shape
    k = round(order.shape[1] ** 0.5)
    pixels = side // k
    inner = images[:, :, : k * pixels, : k * pixels].reshape(faces, channels, k, pixels, k, pixels)
    patches = inner.permute(0, 2, 4, 1, 3, 5).reshape(faces, k * k, channels, pixels, pixels)
    moved = patches[torch.arange(faces, device=images.device)[:, None], order.to(images.device)]
    shuffled = moved.reshape(faces, k, k, channels, pixels, pixels).permute(0, 3, 1, 4, 2, 5)
    made = images.clone()
    made[:, :, : k * pixels, : k * pixels] = shuffled.reshape(faces, channels, k * pixels, k * pixels)
    return made


def srm_filters() -> Tensor:
    """Three 5 x 5 high-pass filters of the spatial rich model (Fridrich and Kodovsky, IEEE TIFS 2012), (3, 5, 5).

    The choice of three follows Zhou et al., "Learning Rich Features for Image Manipulation Detection", CVPR 2018: a
    second-order square, a fourth-order square and a second-order line. Each sums to 0 and is divided by its centre.
    """
    square3 = torch.tensor([[0, 0, 0, 0, 0], [0, -1, 2, -1, 0], [0, 2, -4, 2, 0], [0, -1, 2, -1, 0], [0, 0, 0, 0, 0]])
    square5 = torch.tensor(
        [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
    )
    line = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, -2, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    return torch.stack([square3 / 4, square5 / 12, line / 2])


def srm_residual(images: Tensor) -> Tensor:
    """SRM feature of (B, 3, S, S): mean of the three filters' residuals of each colour, borders mirrored.

    Colour by colour, so that adding it to a picture sharpens it and tints nothing.
    """
    kernel = srm_filters().mean(0).to(images).expand(3, 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=3)


def enhance(images: Tensor, weight: float) -> Tensor:
    """High-frequency enhancement: the SRM residual combined with the picture, clipped to 0..1.

    Combined by subtraction, since the filters' centres are negative: adding their answer would blur.
    """
    return (images - weight * srm_residual(images)).clamp(0.0, 1.0)


def mix(images: Tensor, pairs: Tensor, share: Tensor) -> Tensor:
    """Corresponding mixup: share * x + (1 - share) * x_real, (B, 3, S, S) twice and (B,)."""
    weight = share.to(images)[:, None, None, None]
    return weight * images + (1.0 - weight) * pairs


def changed_pixels(images: Tensor, pairs: Tensor, least: float) -> Tensor:
    """m = |x - x_real| (section 3.4): 1 where the largest of the three colours' differences exceeds `least`."""
    return ((images - pairs).abs().amax(dim=1, keepdim=True) > least).to(images)


def _where(choice: Tensor, there: Tensor, here: Tensor) -> Tensor:
    return torch.where(choice.view(-1, *(1,) * (here.ndim - 1)), there, here)


def show(config: DataViewConfig, draw: Draw, batch: Batch) -> Shown:
    """One view v(x) of a batch, and which of its pixels are forged.

    Frame shift needs batch.other, mixup batch.pair; where a face has none, it goes without. Where no pair is known the
    manifest's mask serves; real faces have an empty mask.
    """
    image, device = batch.image, batch.image.device
    forged = batch.target == 1
    pair, pair_known = batch.pair, batch.pair_known & forged
    mask, mask_known = batch.mask, batch.mask_known
    if batch.other.shape[1]:
        shifted = draw.frame_shift.to(device) & batch.other_known
        image = _where(shifted, batch.other, image)
        if pair.shape[1]:
            pair, pair_known = (
                _where(shifted, batch.other_pair, pair),
                torch.where(shifted, batch.other_pair_known & forged, pair_known),
            )
        if mask.shape[1]:
            mask, mask_known = (
                _where(shifted, batch.other_mask, mask),
                torch.where(shifted, batch.other_mask_known, mask_known),
            )
    known = ~forged
    pixels = image.new_zeros(len(image), 1, *image.shape[2:])
    if mask.shape[1]:
        pixels = _where(mask_known & forged, (mask > 0.5).to(image), pixels)
        known = known | mask_known
    if pair.shape[1]:
        mixed = draw.mixup.to(device) & pair_known
        image = _where(mixed, mix(image, pair, draw.share.to(device)), image)
        pixels = _where(pair_known, changed_pixels(image, pair, config.changed), pixels)
        known = known | pair_known
    image = _where(draw.high_frequency.to(device), enhance(image, config.residual), image)
    patched = draw.patch.to(device)
    both = torch.cat([image, pixels], dim=1)
    both = _where(patched, shuffle_patches(both, draw.order), both)
    return Shown(both[:, :3].contiguous(), both[:, 3:].contiguous(), known)


def plain_view(config: DataViewConfig, batch: Batch) -> Shown:
    """A batch as the common augmentation made it, without any of the four operations, and its forged pixels."""
    faces = len(batch.target)
    nothing = torch.zeros(faces, dtype=torch.bool)
    order = torch.arange(config.patches**2).expand(faces, -1)
    return show(config, Draw(nothing, order, nothing, nothing, nothing, torch.ones(faces)), batch)
