from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from ffd_continual.config import RunConfig, config_from, fill
from ffd_continual.load import learner_class, strategy_class
from ffd_continual.runs.assemble import Parts, assemble_parts
from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.manifest import Manifest, read_manifest
from ffd_continual.scenarios.streams import Scenario, ScenarioConfig, build_scenario
from ffd_continual.strategies.learner import Learner
from ffd_continual.strategies.training.template import FaceStrategy

TINY = {
    "trunk": {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 4},
    "features": 16,  # guide_space and plain with statistics
    "local": 16,  # iin
    "queue": 64,
    "exemplars": 8,
    "faces": 6,  # of an experience, that tell ewc and mas what is important
    "backbone": "hrnet_w18_small",  # of wavelet's branches
    "weights": "none",
    "map_stages": 5,  # dcl's maps are 2 x 2 then
}


def _settings(config_type: type, given: dict[str, Any]) -> dict[str, Any]:
    """The tiny settings that a method has, and the test's own."""
    known = {f.name for f in dataclasses.fields(config_type)}
    return {**{k: v for k, v in TINY.items() if k in known}, **given}


@dataclass
class Losses(SupervisedPlugin):  # type: ignore[misc]
    """Writes down each step's losses."""

    seen: list[dict[str, float]]

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def after_training_iteration(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        named = {name: float(loss.detach()) for name, loss in strategy.losses.items()}
        self.seen.append(named | {"loss": float(strategy.loss.detach())})


@dataclass
class Trained:
    config: RunConfig
    parts: Parts
    agent: FaceStrategy
    losses: list[dict[str, float]]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return {k: v.clone() for k, v in self.parts.learner.state_dict().items()}

    def step_of_the_second(self) -> tuple[Learner, Batch]:
        """After one experience: the second one's first step as far as `before_backward`, without an update.

        Returns the learner as the first experience left it, and the step's batch; the agent holds the losses.
        """
        agent = self.agent
        keeper: Any = self.parts.keeper
        old = copy.deepcopy(self.parts.learner).eval()
        agent.position = (1, 0)
        agent.make_train_dataloader()
        batch = next(iter(agent.dataloader))
        agent.make_optimizer()
        keeper.before_training_exp(agent)
        agent.mbatch = batch
        agent.learner.train()
        agent.out, agent.losses = agent.learner.step(batch)
        agent.loss = torch.zeros(())
        keeper.before_backward(agent)
        return old, batch


@dataclass
class Workshop:
    """Makes the parts of small runs, and trains them. All runs see one scenario: it is laid out once."""

    manifest: Path
    cache: Path

    @cached_property
    def laid_out(self) -> tuple[Manifest, Scenario]:
        manifest = read_manifest(self.manifest)
        return manifest, build_scenario(manifest, fill(ScenarioConfig, self.scenario))

    @property
    def scenario(self) -> dict[str, Any]:
        return {"data": str(self.manifest), "order": ["alpha", "beta", "gamma"], "size": 32}

    def parts(
        self,
        learner: str = "plain",
        strategy: str = "naive",
        learn: dict[str, Any] | None = None,
        keep: dict[str, Any] | None = None,
        **train: Any,
    ) -> tuple[RunConfig, Parts]:
        seed = train.pop("seed", 0)
        config = config_from(
            {
                "scenario": self.scenario,
                "learner": {"name": learner, **_settings(learner_class(learner).config_type, learn or {})},
                "strategy": {"name": strategy, **_settings(strategy_class(strategy).config_type, keep or {})},
                "train": {"steps": 2, "batch": 8, "threads": 1, "eval_batch": 32, "device": "cpu", **train},
                "seed": seed,
            }
        )
        return config, assemble_parts(config, *self.laid_out, self.cache, lambda rows: None)

    def train(
        self,
        *args: Any,
        experiences: int = 3,
        plugins: Sequence[SupervisedPlugin] = (),
        after: Callable[[int, Parts], None] | None = None,
        **kwargs: Any,
    ) -> Trained:
        config, parts = self.parts(*args, **kwargs)
        record = Losses()
        agent = parts.agent(config.train, [*plugins, record])
        for experience in range(experiences):
            agent.position = (experience, 0)
            agent.train(parts.benchmark.train_stream[experience], eval_streams=[])
            if after is not None:
                after(experience, parts)
        return Trained(config, parts, agent, record.seen)


@pytest.fixture(scope="session")
def workshop(tiny_faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tiny_faces, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
