"""DCL's four view operations: each against loops, and the mask that must go where the pixels go."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.dcl_views import (
    DataViewConfig,
    changed_pixels,
    check_data_views,
    draw_data_view,
    enhance,
    mix,
    plain_view,
    show,
    shuffle_patches,
    srm_filters,
    srm_residual,
)

OFF = DataViewConfig(patch=0, high_frequency=0, frame_shift=0, mixup=0, patches=2)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_batch(faces: int = 6, side: int = 8, frames: bool = True, pairs: bool = True, masks: bool = True) -> Batch:
    """Faces 0..2 real, 3..5 forged in their left half; another frame is forged in its right half, the last face has
    neither pair nor other frame."""
    generator = seeded(9)
    target = (torch.arange(faces) >= faces // 2).long()
    clean, later = (0.3 + 0.4 * torch.rand(faces, 3, side, side, generator=generator) for _ in range(2))
    left, right = torch.zeros(2, faces, 1, side, side)
    left[target == 1, :, :, : side // 2] = 1.0
    right[target == 1, :, :, side // 2 :] = 1.0
    forged = target == 1
    some = torch.ones(faces, dtype=torch.bool)
    some[-1] = False
    none, no = torch.zeros(faces, 0), torch.zeros(faces, dtype=torch.bool)
    fields: dict[str, torch.Tensor] = dict.fromkeys(Batch._fields, none)
    fields |= dict.fromkeys([name for name in Batch._fields if name.endswith("_known")], no)
    fields |= dict.fromkeys(("forgery", "experience", "video", "row", "task"), target)
    fields |= {"image": (clean + 0.2 * left), "target": target}
    if pairs:
        fields |= {"pair": clean, "pair_known": forged & some}
    if masks:
        fields |= {"mask": left, "mask_known": torch.ones_like(some)}
    if frames:
        fields |= {"other": later + 0.2 * right, "other_known": some}
        if pairs:
            fields |= {"other_pair": later, "other_pair_known": forged & some}
        if masks:
            fields |= {"other_mask": right, "other_mask_known": torch.ones_like(some)}
    return Batch(**fields)


def test_random_patch_equals_the_loop_and_loses_nothing() -> None:
    k, side = 3, 11  # 3 pixels a patch, 2 left over
    images = torch.rand(2, 2, side, side, generator=seeded(0))
    order = torch.stack([torch.randperm(9, generator=seeded(i)) for i in (1, 2)])
    shown = shuffle_patches(images, order)
    slow = images.numpy().copy()
    for face in range(2):
        for place in range(9):
            source = int(order[face, place])
            for i in range(3):
                for j in range(3):
                    at = (place // k * 3 + i, place % k * 3 + j)
                    there = (source // k * 3 + i, source % k * 3 + j)
                    slow[face, :, at[0], at[1]] = images[face, :, there[0], there[1]].numpy()
    assert np.array_equal(shown.numpy(), slow)
    assert not torch.equal(shown, images)
    assert torch.equal(shown[:, :, 9:], images[:, :, 9:])
    assert torch.equal(shown.flatten(2).sort(2).values, images.flatten(2).sort(2).values)


def test_patches_in_their_own_order_change_nothing() -> None:
    images = torch.rand(2, 3, 10, 10, generator=seeded(3))
    assert torch.equal(shuffle_patches(images, torch.arange(9).expand(2, -1)), images)
    assert torch.equal(shuffle_patches(images, torch.zeros(2, 1, dtype=torch.int64)), images)


def test_the_srm_residual_equals_the_loop() -> None:
    images = torch.rand(1, 3, 7, 7, generator=seeded(4))
    filters = srm_filters().numpy()
    padded = np.pad(images.numpy()[0], ((0, 0), (2, 2), (2, 2)), mode="reflect")
    slow = np.zeros((3, 7, 7))
    for c in range(3):
        for i in range(7):
            for j in range(7):
                answers = [sum(f[a, b] * padded[c, i + a, j + b] for a in range(5) for b in range(5)) for f in filters]
                slow[c, i, j] = sum(answers) / 3
    assert np.allclose(srm_residual(images)[0].numpy(), slow, atol=1e-6)


def test_srm_by_hand() -> None:
    """A lone bright pixel answers -1 at its place in every filter, and nothing answers to flat or sloping pictures."""
    dot = torch.zeros(1, 3, 9, 9)
    dot[:, :, 4, 4] = 1.0
    residual = srm_residual(dot)
    assert torch.allclose(residual[0, :, 4, 4], torch.full((3,), -1.0))
    # to the right of it: 2/4 of the first filter, 8/12 of the second, 1/2 of the third
    assert residual[0, 0, 4, 5] == pytest.approx((2 / 4 + 8 / 12 + 1 / 2) / 3, abs=1e-6)
    assert torch.allclose(srm_filters().sum((1, 2)), torch.zeros(3), atol=1e-6)
    slope = torch.linspace(0, 1, 9).expand(1, 3, 9, 9)
    assert torch.allclose(srm_residual(slope)[..., 2:-2, 2:-2], torch.zeros(1, 3, 5, 5), atol=1e-6)


def test_enhancement_sharpens_stays_in_range_and_can_be_off() -> None:
    images = torch.rand(2, 3, 16, 16, generator=seeded(5))
    soft = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    made = enhance(soft, 1.0)
    assert float(made.min()) >= 0.0
    assert float(made.max()) <= 1.0
    inner = (..., slice(3, -3), slice(3, -3))
    assert float(srm_residual(made)[inner].abs().mean()) > float(srm_residual(soft)[inner].abs().mean())
    assert torch.equal(enhance(images, 0.0), images)


def test_mixup_and_the_mask_by_hand() -> None:
    """x 0.8, x_real 0.4: at 3/4 forged 0.7; |x - x_real| 0.3 passes 0.25, at 1/2 forged 0.2 does not."""
    x, real = torch.full((2, 3, 1, 1), 0.8), torch.full((2, 3, 1, 1), 0.4)
    mixed = mix(x, real, torch.tensor([0.75, 0.5]))
    assert torch.allclose(mixed[:, 0, 0, 0], torch.tensor([0.7, 0.6]))
    assert changed_pixels(mixed, real, 0.25)[:, 0, 0, 0].tolist() == [1.0, 0.0]
    one_colour = real.clone()
    one_colour[:, 2] += 0.3
    assert changed_pixels(one_colour, real, 0.25).shape == (2, 1, 1, 1)
    assert changed_pixels(one_colour, real, 0.25).sum() == 2


def test_a_draw_obeys_its_probabilities_and_is_independent() -> None:
    config = DataViewConfig(patch=0.2, high_frequency=0.4, frame_shift=0.6, mixup=0.8, patches=2, forged_share=0.3)
    draw = draw_data_view(config, 20000, seeded(6))
    flags = torch.stack([draw.patch, draw.high_frequency, draw.frame_shift, draw.mixup]).double()
    assert flags.mean(1).tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8], abs=0.015)
    assert float((torch.corrcoef(flags) - torch.eye(4)).abs().max()) < 0.03
    assert 0.3 <= float(draw.share.min()) < 0.31
    assert 0.99 < float(draw.share.max()) <= 1.0
    assert torch.equal(draw.order.sort(1).values, torch.arange(4).expand(20000, -1))
    first = torch.bincount(draw.order[:, 0], minlength=4) / 20000
    assert first.tolist() == pytest.approx([0.25] * 4, abs=0.015)
    more = draw_data_view(config, 20000, seeded(7))
    together = torch.corrcoef(torch.stack([draw.mixup, more.mixup]).double())
    assert abs(float(together[0, 1])) < 0.03


def test_the_probabilities_change_no_other_draw() -> None:
    one, other = (draw_data_view(DataViewConfig(patch=p), 50, seeded(8)) for p in (0.0, 1.0))
    assert not one.patch.any()
    assert other.patch.all()
    assert torch.equal(one.order, other.order)
    assert torch.equal(one.mixup, other.mixup)
    assert torch.equal(one.share, other.share)


def test_without_operations_a_view_is_the_picture_and_its_mask() -> None:
    batch = make_batch()
    for shown in (plain_view(OFF, batch), show(OFF, draw_data_view(OFF, 6), batch)):
        assert torch.equal(shown.image, batch.image)
        assert torch.equal(shown.mask, batch.mask)  # by difference where a pair is known, by the manifest elsewhere
        assert shown.known.all()


def test_frame_shift_brings_the_other_frame_s_mask() -> None:
    config = DataViewConfig(patch=0, high_frequency=0, frame_shift=1, mixup=0)
    for pairs in (True, False):
        batch = make_batch(pairs=pairs)
        shown = show(config, draw_data_view(config, 6), batch)
        assert torch.equal(shown.image[:5], batch.other[:5])
        assert torch.equal(shown.image[5], batch.image[5])  # a face without another frame stays
        assert torch.equal(shown.mask[3:5], batch.other_mask[3:5])
        assert torch.equal(shown.mask[5], batch.mask[5])
        assert not shown.mask[:3].any()
    alone = make_batch(frames=False)
    assert torch.equal(show(config, draw_data_view(config, 6), alone).image, alone.image)


def test_mixup_is_for_forged_faces_with_a_pair() -> None:
    config = DataViewConfig(patch=0, high_frequency=0, frame_shift=0, mixup=1, forged_share=0.5, changed=0.15)
    batch = make_batch()
    draw = draw_data_view(config, 6, seeded(1))
    shown = show(config, draw, batch)
    assert torch.equal(shown.image[:3], batch.image[:3])
    assert torch.equal(shown.image[5], batch.image[5])
    for face in (3, 4):
        share = float(draw.share[face])
        expected = share * batch.image[face] + (1 - share) * batch.pair[face]
        assert torch.allclose(shown.image[face], expected, atol=1e-6)
        # |x - x_real| is 0.2 in the left half; its forged share remains
        assert torch.equal(shown.mask[face] > 0, (batch.mask[face] > 0) & (0.2 * share > 0.15))
    assert {0.2 * float(s) > 0.15 for s in draw.share[3:5]} == {True, False}
    without = make_batch(pairs=False)
    assert torch.equal(show(config, draw, without).image, without.image)


def test_the_mask_follows_shuffled_patches_and_high_frequency_moves_nothing() -> None:
    config = DataViewConfig(patch=1, high_frequency=0, frame_shift=0, mixup=0, patches=2)
    batch = make_batch()
    draw = draw_data_view(config, 6, seeded(11))
    shown = show(config, draw, batch)
    for face in (3, 4, 5):
        for place, source in enumerate(draw.order[face].tolist()):
            part = shown.mask[face, 0, place // 2 * 4 : place // 2 * 4 + 4, place % 2 * 4 : place % 2 * 4 + 4]
            assert bool((part == float(source % 2 == 0)).all())  # sources 0 and 2 lie in the forged left half
    sharpen = DataViewConfig(patch=0, high_frequency=1, frame_shift=0, mixup=0)
    sharp = show(sharpen, draw_data_view(sharpen, 6), batch)
    assert torch.equal(sharp.mask, batch.mask)
    assert torch.allclose(sharp.image, enhance(batch.image, 1.0))


def test_a_mask_that_nobody_knows_is_not_taken_for_an_empty_one() -> None:
    shown = plain_view(OFF, make_batch(pairs=False, masks=False, frames=False))
    assert shown.known.tolist() == [True] * 3 + [False] * 3
    shown = plain_view(OFF, make_batch(masks=False, frames=False))
    assert shown.known.tolist() == [True] * 5 + [False]
    shifting = DataViewConfig(patch=0, high_frequency=0, frame_shift=1, mixup=0)
    batch = make_batch(masks=False)
    batch = batch._replace(other_pair_known=torch.zeros(6, dtype=torch.bool))
    assert show(shifting, draw_data_view(shifting, 6), batch).known.tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize(("key", "value"), [("patch", 1.5), ("mixup", -0.1), ("forged_share", 2.0), ("patches", 0)])
def test_impossible_settings_are_refused(key: str, value: float) -> None:
    with pytest.raises(FFDError, match=f"learner.data_views.{key}"):
        check_data_views(DataViewConfig(**{key: value}))  # type: ignore[arg-type]
