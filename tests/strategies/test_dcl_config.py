"""DCL's configurations: the paper's values, its ablation table, what the learner asks for and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from ffd_continual.config import apply_sets, config_from, fill, read_yaml
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.dcl import DCL, DCLConfig
from ffd_continual.strategies.learners.dcl_losses import balance
from ffd_continual.strategies.learners.dcl_views import DataViewConfig
from ffd_continual.strategies.learners.trunk import TrunkConfig
from ffd_continual.sweeping.grid import Grid

GRID = Path(__file__).resolve().parents[2] / "configs" / "grids" / "dcl_ablation.yaml"


def settings(**given: Any) -> DCLConfig:
    return DCLConfig(**{"trunk": TrunkConfig("test_efficientnet", "none", 2), "map_stages": 5, "queue": 64, **given})


def test_the_grid_holds_every_row_of_table_5() -> None:
    """Columns Inter, Views, Hard, Intra; then the row that the text alone names."""
    grid = fill(Grid, yaml.safe_load(GRID.read_text(encoding="utf-8")))
    rows = []
    for sets in grid.cells().values():
        c = config_from(apply_sets(read_yaml(grid.base), [*grid.set, *sets])).learner.config
        rows.append((c.inter, c.special_views, c.inter and c.hard, c.intra))
    assert rows == [
        (False, True, False, False),
        (True, False, False, False),
        (True, True, False, False),
        (True, False, True, False),
        (True, True, True, False),
        (True, True, True, True),
        (False, True, False, True),
    ]


def test_the_paper_s_values_are_the_config_s() -> None:
    run = config_from(read_yaml("dcl_ffpp"))
    learner, train = run.learner.config, run.train
    assert (learner.beta, learner.tau, learner.queue, learner.alpha, learner.theta) == (0.99, 0.07, 30000, 0.9, 0.5)
    assert (learner.phi_start, learner.phi, learner.trunk_lr, learner.map_stages) == (0.1, 0.5, 1.0, 0)
    assert (train.lr, train.weight_decay, train.batch, train.optimizer) == (1e-3, 1e-5, 32, "adam")
    assert (run.scenario.size, learner.trunk.backbone) == (299, "efficientnet_b4")
    assert round(learner.phi_warmup * train.steps) == 5 * 720 * 5 * 50 // 32
    assert balance(0.0, True, learner.phi, learner.phi_start, learner.phi_warmup) == 0.1
    assert DCLConfig().queue == learner.queue
    assert math.isclose(DCLConfig().tau, learner.tau)


@pytest.mark.parametrize(
    ("given", "needs", "wants"),
    [
        ({}, set(), {"pair", "mask", "other"}),
        ({"special_views": False}, {"view2"}, {"pair", "mask"}),
        ({"special_views": False, "intra": False}, {"view2"}, set()),
        ({"special_views": False, "inter": False}, set(), {"pair", "mask"}),
        ({"intra": False, "data_views": DataViewConfig(frame_shift=0.0)}, set(), {"pair"}),
        ({"intra": False, "data_views": DataViewConfig(mixup=0.0)}, set(), {"other"}),
    ],
    ids=lambda given: str(sorted(given)) if isinstance(given, set) else str(given),
)
def test_it_asks_for_what_its_parts_use(given: dict[str, Any], needs: set[str], wants: set[str]) -> None:
    learner = DCL(settings(**given))
    assert learner.needs == needs
    assert learner.wants == wants


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tau": 0.0}, "learner.tau"),
        ({"beta": 1.5}, "learner.beta"),
        ({"map_stages": 2}, "learner.map_stages=2.*3 to 7"),
        ({"map_stages": 9}, "learner.map_stages=9"),
        ({"data_views": DataViewConfig(patches=0)}, "learner.data_views.patches"),
    ],
    ids=lambda given: str(sorted(given)) if isinstance(given, set) else str(given),
)
def test_impossible_settings_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(FFDError, match=words):
        DCL(settings(**given))
