"""From a configuration to the parts of a run: faces, scenario, learner, strategy, template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ffd_continual.config import RunConfig
from ffd_continual.load import learner_class, strategy_class
from ffd_continual.scenarios.dataset import Sources, make_sources
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.folder import IDENTITY_PATTERN, open_faces
from ffd_continual.scenarios.kept import Kept, keep_features
from ffd_continual.scenarios.landmarks import fill_landmarks, models_installed
from ffd_continual.scenarios.manifest import Manifest
from ffd_continual.scenarios.shuffled import BETRAYING, shuffle_labels
from ffd_continual.scenarios.streams import Scenario, build_scenario, check_classes
from ffd_continual.scenarios.studio_set import studio_manifest
from ffd_continual.scenarios.table import FaceTable, prepare_table
from ffd_continual.strategies.learner import Learner, place
from ffd_continual.strategies.strategy import Context, Strategy
from ffd_continual.strategies.training.settings import TrainConfig, fork_seeded
from ffd_continual.terminal import say

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


@dataclass(frozen=True)
class Parts:
    """Everything a run is made of, before its first step."""

    manifest: Manifest
    scenario: Scenario
    sources: Sources
    learner: Learner
    keeper: Strategy
    device: torch.device

    @cached_property
    def benchmark(self) -> Any:
        """Avalanche's streams of the scenario. Who does not train never asks: loading Avalanche takes seconds."""
        from ffd_continual.scenarios.benchmark import make_benchmark

        return make_benchmark(self.scenario, self.sources)

    def agent(self, train: TrainConfig, plugins: Sequence[Any] = ()) -> FaceStrategy:
        """Learner and strategy in Avalanche's template, with plugins beside them."""
        from ffd_continual.strategies.training.template import FaceStrategy

        return FaceStrategy(
            learner=self.learner,
            keeper=self.keeper,
            sources=self.sources,
            config=train,
            device=self.device,
            plugins=plugins,
        )


def open_data(config: RunConfig, cache: Path) -> Manifest:
    """The manifest that a scenario names; `studio` is rendered and forged first, once for each setting."""
    scenario = config.scenario
    if scenario.data == "studio":
        return studio_manifest(scenario, cache, config.train.threads)
    pattern = scenario.identity_pattern or IDENTITY_PATTERN
    return open_faces(scenario.data, seed=scenario.seed, identity_pattern=pattern)


def choose_device(name: str) -> torch.device:
    """ "auto" takes a GPU when there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise FFDError(f"train.device={name}: this machine has cpu{', cuda' if torch.cuda.is_available() else ''}.")
    return torch.device(name)


def _keep(config: RunConfig, learner: Learner, sources: Sources, cache: Path, device: torch.device) -> Kept:
    learner.eval()

    def frozen(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            made = learner.frozen(images.to(device))
        assert made is not None
        return made

    key = f"{learner.frozen_key()}|{config.train.threads}"
    kept = keep_features(sources.table, config.views, config.train.kept_views, frozen, key, cache)
    learner.train()
    return kept


def _masks_wanted(rows: pd.DataFrame, source: str) -> bool:
    given = (rows["mask"] != "").any() if source in ("auto", "manifest") else False
    paired = ((rows["pair"] != "") & (rows["label"] == 1)).any() if source != "manifest" else False
    return bool(given or paired)


def _tell_masks(table: FaceTable, config: RunConfig) -> None:
    """Say where masks do not come from the manifest, and how many faces changed their label."""
    source, forged = config.scenario.masks, table.rows["label"] == 1
    derived = forged & (table.rows["pair"] != "") & ((table.rows["mask"] == "") | (source in ("difference", "ssim")))
    slots = np.unique(table.slot[derived.to_numpy()])
    if len(table.masks) and source != "manifest" and len(slots):
        found, way = int(table.mask_known[slots].sum()), "ssim" if source == "ssim" else "difference"
        rest = f"; {len(slots) - found} pairs have another size than their face" if found < len(slots) else ""
        say(f"masks of {found} forged faces were made from their pairs by {way}{rest}")
    if config.scenario.relabel_below:
        say(
            f"{table.relabelled} forged training faces have fewer than {config.scenario.relabel_below} forged pixels "
            "and count as real"
        )


def _shuffled(table: FaceTable, config: RunConfig, learner: Learner) -> FaceTable:
    """The control's table. FFDError for a learner that cannot do without what would betray the true labels."""
    lacks = sorted(learner.needs & BETRAYING)
    if lacks:
        raise FFDError(
            f"scenario.labels=shuffled gives no {', '.join(lacks)}, which would betray the true labels, and learner "
            f"{config.learner.name} as configured needs them: switch these parts off, or control another learner."
        )
    say("control: the labels of training and validation faces are shuffled; every figure should be chance")
    return shuffle_labels(table, config.seed)


def _made(config: RunConfig) -> Learner:
    """The learner. FFDError where its settings make none, such as a queue without places."""
    try:
        learner: Learner = learner_class(config.learner.name)(config.learner.config)  # type: ignore[call-arg]
    except ValueError as error:
        raise FFDError(f"learner {config.learner.name} cannot be made with its settings: {error}.") from error
    return learner


def assemble(config: RunConfig, cache: Path, report_skipped: Callable[[pd.DataFrame], None]) -> Parts:
    """Build the parts of a run. All checks of the input happen here, before any training."""
    manifest = open_data(config, cache)
    scenario = build_scenario(manifest, config.scenario)
    for note in scenario.notes:
        say(note)
    return assemble_parts(config, manifest, scenario, cache, report_skipped)


def assemble_parts(
    config: RunConfig,
    manifest: Manifest,
    scenario: Scenario,
    cache: Path,
    report_skipped: Callable[[pd.DataFrame], None],
    store: Path | None = None,
) -> Parts:
    """The same for a scenario whose rows are laid out already, as a lineage's are. store: as of `prepare_table`."""
    device = choose_device(config.train.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fork_seeded(config.seed, 3))
        learner = _made(config)
    rows = scenario.rows
    if "pseudo" in learner.needs | learner.wants and models_installed():
        rows = fill_landmarks(rows, cache)
    table = prepare_table(
        rows,
        scenario.names,
        config.scenario.size,
        config.scenario.seed,
        dict(scenario.profiles),
        crop=config.scenario.crop,
        need_mask=_masks_wanted(rows, config.scenario.masks),
        need_pair="pair" in learner.needs | learner.wants,
        masks=config.scenario.masks,
        relabel_below=config.scenario.relabel_below,
        skip_unreadable=config.scenario.unreadable == "skip",
        cache=cache,
        threads=config.train.threads,
        report_skipped=report_skipped,
        store=store,
    )
    _tell_masks(table, config)
    if config.scenario.labels == "shuffled":
        table = _shuffled(table, config, learner)
    if len(table.rows) < len(scenario.rows) or table.relabelled:  # unreadable faces were left out, or labels changed
        check_classes(table.rows, scenario.experiences, scenario.unseen, config.scenario.data)
    kept = Scenario(table.rows, scenario.experiences, scenario.unseen, scenario.names, scenario.profiles)
    sources = make_sources(table, kept, config.views, learner.needs, learner.wants, config.seed)
    if config.train.kept_views > 0:
        frozen = learner.frozen(torch.zeros(2, 3, config.scenario.size, config.scenario.size))
        if frozen is None:
            raise FFDError(
                f"train.kept_views={config.train.kept_views} keeps the features of frozen layers, and learner "
                f"{config.learner.name} as configured trains all of its layers: set train.kept_views to 0."
            )
        sources = replace(sources, kept=_keep(config, learner, sources, cache, device))
    unmet = sorted(learner.wants - sources.needs)
    if unmet:
        say(f"the data give no {', '.join(unmet)}: {config.learner.name} learns without the parts that use them")
    train = tuple(kept.index("train", name) for name in kept.experiences)
    keeper = strategy_class(config.strategy.name)(config.strategy.config, Context(sources, train, config.seed))
    place(learner, device)
    return Parts(manifest, kept, sources, learner, keeper, device)
