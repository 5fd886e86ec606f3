"""Decoupling and drift of a learner's modules: against loops, by hand, and on a whole run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ffd_continual.config import config_from
from ffd_continual.reporting.report import write_report
from ffd_continual.run import start
from ffd_continual.runs.assemble import assemble
from ffd_continual.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ffd_continual.runs.folder import RunFolder
from ffd_continual.runs.modules import correlation_floor, held_out, mean_correlation, measure_modules
from ffd_continual.runs.saving import restore_learner


def test_correlation_by_hand() -> None:
    """Two classes of two faces. Within each class the first feature goes -1, +1 about its mean; of the specials, one
    goes the same way (corr 1), one the same in class 0 and the other way in class 1 (corr 0). Mean |corr|: 1/2."""
    labels = torch.tensor([0, 0, 1, 1])
    common = torch.tensor([[4.0], [6.0], [-1.0], [1.0]])
    special = torch.tensor([[0.0, 0.0], [2.0, 2.0], [10.0, 12.0], [12.0, 10.0]])
    assert mean_correlation(common, special, labels) == pytest.approx(0.5, abs=1e-4)


def test_correlation_against_loops() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    common, special = rng.normal(size=(60, 3)) + labels[:, None], rng.normal(size=(60, 4)) - 2 * labels[:, None]
    special[:, 0] += common[:, 1]
    total = 0.0
    for i in range(3):
        for j in range(4):
            a, b = common[:, i].copy(), special[:, j].copy()
            for label in (0, 1):
                a[labels == label] -= a[labels == label].mean()
                b[labels == label] -= b[labels == label].mean()
            total += abs((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
    found = mean_correlation(torch.from_numpy(common), torch.from_numpy(special), torch.from_numpy(labels))
    assert found == pytest.approx(total / 12, rel=1e-3)


def test_the_floor_is_what_unrelated_features_reach() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(400) % 2
    common = torch.randn(400, 8, generator=generator) + 5.0 * labels[:, None]
    special = torch.randn(400, 8, generator=generator) - 3.0 * labels[:, None]
    floor = correlation_floor(common, special, labels)
    # |r| of N unrelated faces is about |N(0, 1)| / sqrt(N): 0.798 / 20.
    assert floor == pytest.approx(0.798 / 20, rel=0.1)
    assert mean_correlation(common, special, labels) == pytest.approx(floor, rel=0.25)
    related = special + 0.5 * common
    assert mean_correlation(common, related, labels) > 1.5 * correlation_floor(common, related, labels)


def test_a_run_reports_its_modules(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    tiny_config["scenario"]["size"] = 32
    tiny_config["train"] |= {"steps": 3, "batch": 8}
    config, run = config_from(tiny_config), tmp_path / "run"
    start(config, run)
    found = json.loads((run / "summary.json").read_text())["modules"]
    assert list(found["of"]) == ["alpha", "beta"]
    for one in found["of"].values():
        assert 0 < one["corr"] <= 1
        assert 0 < one["floor"] <= 1
        assert one["drift"] == 0.0  # closed modules on frozen statistics cannot move
        assert one["spread"] > 0
        assert one["auc_then"] == one["auc_now"]
    page = (run / "report" / "report.html").read_text()
    assert "Module of" in page
    assert "With fewer than 1,000 faces" in page

    parts = assemble(config, tmp_path / ".cache", lambda rows: None)
    rows = held_out(parts)
    slots = parts.sources.table.slot[rows]
    assert len(set(slots.tolist())) == len(rows) == found["faces"]
    assert set(parts.sources.table.rows["stream"].iloc[rows]) == {"test", "valid"}  # few faces: validation joins

    # A module whose checkpoint says another bias has moved by just that, and ranks faces as before.
    restore_learner(parts.learner, load_checkpoint(run / "checkpoints" / "after_001"), run)
    first = run / "checkpoints" / "after_000"
    old = load_checkpoint(first)
    old.tensors["learner.intra.0.head.bias"] += 0.75
    save_checkpoint(first, Checkpoint(old.tensors, old.meta))
    moved = measure_modules(RunFolder(run), config, parts)
    assert moved["of"]["alpha"]["drift"] == pytest.approx(0.75, abs=1e-5)
    assert moved["of"]["alpha"]["auc_then"] == moved["of"]["alpha"]["auc_now"]
    assert moved["of"]["beta"] == found["of"]["beta"]
    assert moved["of"]["alpha"]["corr"] == found["of"]["alpha"]["corr"]


def test_learners_without_modules_say_nothing(small_config: dict[str, Any], tmp_path: Path) -> None:
    start(config_from(small_config), tmp_path / "run")
    assert "modules" not in json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "Module of" not in write_report(tmp_path / "run").read_text()
