"""What each learner keeps to beside test_contract.py: saved and loaded in mid-experience it goes on bit for bit, and it
leaves its batches alone; slow: every learner under naive and joint, and the field's backbones for one step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from ffd_continual.load import known_methods
from ffd_continual.runs.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
)
from ffd_continual.runs.saving import restore
from ffd_continual.scenarios.batch import Batch
from ffd_continual.strategies.learner import Learner, place
from ffd_continual.strategies.learners.plain import Plain, PlainConfig
from ffd_continual.strategies.learners.trunk import TrunkConfig
from ffd_continual.strategies.strategy import Strategy
from ffd_continual.strategies.training.template import FaceStrategy

LEARNERS = sorted(known_methods(Learner))
HEAVY = {"wavelet"}  # two HRNets, of which there is no tiny one; test_contract.py trains it every time
STEPS, LAST, SAVED_AT = 3, 2, 1
SEED = {"steps": STEPS, "seed": 4}


def _bytes(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: value.detach().contiguous().numpy().tobytes() for name, value in tensors.items()}


def _names(learner: Learner) -> dict[int, str]:
    return {id(p): name for name, p in learner.named_parameters()}


def _save(path: Path, learner: Learner, keeper: Strategy, more: dict[str, torch.Tensor]) -> None:
    kept, values = keeper.state_dict()
    tensors = {f"learner.{k}": v for k, v in learner.state_dict().items()} | more
    tensors |= {f"strategy.{k}": v for k, v in kept.items()}
    save_checkpoint(path, Checkpoint(tensors, {"position": [0, 0], "growth": list(learner.growth), "strategy": values}))


class Watch(SupervisedPlugin):  # type: ignore[misc]
    """Notes losses; saves inside the last experience; compares every batch before and after the learner saw it."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder, self.losses, self.batches = folder, list[dict[str, float]](), 0

    def before_forward(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        self.shown = [field.clone() for field in strategy.mbatch]

    def after_forward(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        for name, before, now in zip(Batch._fields, self.shown, strategy.mbatch, strict=True):
            assert torch.equal(before, now), f"the learner changed the batch's {name}"
        self.batches += 1

    def after_training_iteration(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        self.losses.append({name: float(loss.detach()) for name, loss in strategy.losses.items()})
        if strategy.position == (LAST, SAVED_AT):
            moments = optimizer_tensors(strategy.optimizer, _names(strategy.learner))
            more = {f"optimizer.{k}": v for k, v in moments.items()}
            _save(self.folder / "inside", strategy.learner, strategy.keeper, more)


class Return(SupervisedPlugin):  # type: ignore[misc]
    """Takes the state inside the experience back once the experience has been opened; notes losses."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder, self.losses = folder, list[dict[str, float]]()

    def before_training_epoch(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        found = load_checkpoint(self.folder / "inside")
        restore(strategy.learner, strategy.keeper, found, self.folder)
        moments = {k.removeprefix("optimizer."): v for k, v in found.tensors.items() if k.startswith("optimizer.")}
        load_optimizer(strategy.optimizer, _names(strategy.learner), moments)

    def after_training_iteration(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        self.losses.append({name: float(loss.detach()) for name, loss in strategy.losses.items()})


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else []) for name in LEARNERS]
)
def test_saved_and_loaded_inside_an_experience_it_goes_on_bit_for_bit(workshop: Any, name: str, tmp_path: Path) -> None:
    watch = Watch(tmp_path)

    def at_boundary(experience: int, parts: Any) -> None:
        if experience == LAST - 1:
            _save(tmp_path / "boundary", parts.learner, parts.keeper, {})

    whole = workshop.train(name, "replay", plugins=[watch], after=at_boundary, **SEED)
    assert watch.batches == len(watch.losses) == 3 * STEPS
    assert all(math.isfinite(value) for step in watch.losses for value in step.values())

    config, parts = workshop.parts(name, "replay", **SEED)
    restore(parts.learner, parts.keeper, load_checkpoint(tmp_path / "boundary"), tmp_path)
    place(parts.learner, parts.device)
    back = Return(tmp_path)
    agent = parts.agent(config.train, [back])
    agent.position = (LAST, SAVED_AT)
    agent.train(parts.benchmark.train_stream[LAST], eval_streams=[])
    assert back.losses == watch.losses[LAST * STEPS + SAVED_AT :]
    assert _bytes(parts.learner.state_dict()) == _bytes(whole.weights)
    assert parts.learner.growth == whole.parts.learner.growth == ["alpha", "beta", "gamma"]
    images = torch.rand(2, 3, 32, 32)
    outs = []
    for learner in (whole.parts.learner, parts.learner):
        learner.eval()
        with torch.no_grad():
            outs.append(learner(images))
    assert torch.equal(outs[0].z, outs[1].z)
    assert _bytes(outs[0].features) == _bytes(outs[1].features)
    assert _bytes(outs[0].maps) == _bytes(outs[1].maps)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["naive", "joint"])
@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_learns_under_naive_and_joint(workshop: Any, name: str, strategy: str, tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    one = workshop.train(name, strategy, plugins=[watch], **SEED)
    two = workshop.train(name, strategy, **SEED)
    assert watch.batches == 3 * STEPS
    assert all(math.isfinite(value) for step in one.losses for value in step.values())
    assert one.losses == two.losses
    assert _bytes(one.weights) == _bytes(two.weights)
    assert one.parts.learner.growth == ["alpha", "beta", "gamma"]
    rows = one.parts.scenario.index("test", "gamma")
    scores = one.parts.keeper.decide(one.parts.learner.eval()(next(one.agent.faces(rows)).image))
    assert bool(torch.isfinite(scores).all())


def _batch(count: int, side: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    none, no = torch.zeros(count, 0), torch.zeros(count, dtype=torch.bool)
    fields: dict[str, Any] = {name: no if name.endswith("known") else none for name in Batch._fields}
    fields["image"] = torch.rand(count, 3, side, side, generator=generator)
    fields["target"] = fields["forgery"] = torch.arange(count) % 2
    return Batch(**fields)


#: The papers' backbones, and the channels of their last map.
BACKBONES = {
    "legacy_xception": 2048,  # Roessler et al., 2019; LLSM
    "efficientnet_b0": 1280,  # DCL, table 4
    "efficientnet_b4": 1792,  # DCL, Guide-Space
    "resnet50": 2048,
    "dpn68": 832,
    "vgg19": 512,
    "hrnet_w18": 2048,
}


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "channels"), BACKBONES.items())
def test_the_field_s_backbones_train(backbone: str, channels: int) -> None:
    torch.manual_seed(0)
    learner = Plain(PlainConfig(trunk=TrunkConfig(backbone=backbone, weights="none", frozen_stages=0)))
    assert learner.trunk.channels == channels
    optimizer = torch.optim.AdamW(learner.param_groups(1e-3, 1e-4))
    batch, before = _batch(4, 96), _bytes(dict(learner.named_parameters()))
    for _ in range(2):  # ResNet's blocks start closed (their last scale is 0): the first step opens them
        optimizer.zero_grad()
        out, losses = learner.step(batch)
        assert out.z.shape == (4,)
        assert out.features["common"].shape == (4, channels)
        assert 0 < float(losses["decision"]) < 10
        losses["decision"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    slopes = [0.0 if p.grad is None else float(p.grad.abs().max()) for p in learner.parameters()]
    assert sum(slope > 0 for slope in slopes) >= 0.95 * len(slopes)
    after = _bytes(dict(learner.named_parameters()))
    assert sum(after[name] != before[name] for name in before) >= 0.95 * len(before)
    assert all(bool(torch.isfinite(p).all()) for p in learner.parameters())
