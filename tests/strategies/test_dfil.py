"""DFIL: its terms against loops over a run's own faces, its memory, and its limit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ffd_continual.strategies.dfil import DFILConfig


def test_the_weights_are_the_paper_s() -> None:
    config = DFILConfig()
    assert (config.contrast_weight, config.feature_weight, config.logit_weight) == (0.1, 0.01, 0.3)
    assert (config.temperature, config.exemplars, config.policy) == (20.0, 500, "hardandcentre")


def test_the_terms_of_a_step_follow_a_loop(workshop: Any) -> None:
    run = workshop.train("plain", "dfil", keep={"exemplars": 12}, experiences=1, steps=4, lr=1e-2)
    agent, (old, batch) = run.agent, run.step_of_the_second()
    with torch.no_grad():
        taught = old(batch.image)
    features, count = agent.out.features["common"].detach().double().numpy(), len(batch.target)
    unit = [f / np.linalg.norm(f) for f in features]
    contrast, squares, divergence = [], [], []
    for i in range(count):
        bottom = sum(math.exp(unit[i] @ unit[j] / 0.1) for j in range(count) if j != i)
        same = [j for j in range(count) if j != i and batch.target[j] == batch.target[i]]
        contrast.append(-sum(unit[i] @ unit[j] / 0.1 - math.log(bottom) for j in same) / len(same))
        squares.append(((features[i] - taught.features["common"][i].double().numpy()) ** 2).mean())
        p, q = (1.0 / (1.0 + math.exp(-float(v) / 20.0)) for v in (taught.z[i], agent.out.z[i]))
        divergence.append(400.0 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))))
    assert float(agent.losses["supervised_contrast"]) == pytest.approx(0.1 * np.mean(contrast), rel=1e-4)
    assert float(agent.losses["keep_feature"]) == pytest.approx(0.01 * np.mean(squares), rel=1e-3)
    assert float(agent.losses["keep_logit"]) == pytest.approx(0.3 * np.mean(divergence), rel=1e-2, abs=1e-5)


def test_half_of_the_memory_is_central(workshop: Any) -> None:
    """The face nearest to its cell's mean is stored, and so is the one of highest entropy."""
    found: dict[str, Any] = {}

    def look(experience: int, parts: Any) -> None:
        table = parts.keeper.memory.table
        found["rows"], found["labels"] = table.row.tolist(), table.label.tolist()

    run = workshop.train("plain", "dfil", keep={"exemplars": 4}, experiences=1, after=look)
    first = run.losses[0]  # there is no teacher yet
    assert first.keys() == {"decision", "supervised_contrast", "loss"}
    assert first["loss"] == pytest.approx(first["decision"] + first["supervised_contrast"])
    sources, learner = run.parts.sources, run.parts.learner.eval()
    rows = run.parts.keeper.context.train_rows[0]
    with torch.no_grad():
        outs = [learner(batch.image) for batch in run.agent.faces(rows)]
    features = torch.cat([out.features["common"] for out in outs]).double().numpy()
    scores = torch.sigmoid(torch.cat([out.z for out in outs])).double().numpy()
    for label in (0, 1):
        cell = [i for i, row in enumerate(rows) if int(sources.forgery[row] > 0) == label]
        mean = np.mean([features[i] for i in cell], axis=0)
        central = min(cell, key=lambda i: float(np.linalg.norm(features[i] - mean)))
        hard = min((i for i in cell if i != central), key=lambda i: abs(scores[i] - 0.5))
        kept = {row for row, kind in zip(found["rows"], found["labels"], strict=True) if kind == label}
        assert kept == {int(rows[central]), int(rows[hard])}


def test_without_its_terms_it_is_replay(workshop: Any) -> None:
    off = {"contrast_weight": 0.0, "feature_weight": 0.0, "logit_weight": 0.0}
    replay = workshop.train("plain", "replay", keep={"policy": "hardandcentre"}, experiences=2)
    silent = workshop.train("plain", "dfil", keep=off, experiences=2)
    assert silent.losses == replay.losses
    assert all(torch.equal(replay.weights[name], value) for name, value in silent.weights.items())
