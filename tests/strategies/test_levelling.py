"""Levels: one number a type, read at closing; ranks within a source stay, sources come to one level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.levelling import Levels


def _levels(*values: float) -> Levels:
    made = Levels()
    for kind, value in enumerate(values):
        made.grow()
        made.learn(kind, torch.tensor([value - 1.0, value, value + 5.0]))
    return made


def test_a_type_s_level_is_the_median_of_its_real_faces() -> None:
    made = _levels(-4.0, 0.5)
    assert made.levels.tolist() == [-4.0, 0.5]
    made.grow()
    made.learn(2, torch.zeros(0))  # no real face was seen
    assert made.levels.tolist() == [-4.0, 0.5, 0.0]


def test_scores_are_read_above_the_level_of_the_types_that_a_face_resembles() -> None:
    made = _levels(-4.0, 0.5)
    z, weights = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]])
    wanted = [a - sum(w * b for w, b in zip(row, (-4.0, 0.5), strict=True)) for a, row in zip(z, weights, strict=True)]
    assert made(z, weights).tolist() == pytest.approx([float(one) for one in wanted])


def test_levels_grow_into_what_is_loaded() -> None:
    fresh = Levels()
    fresh.load_state_dict(_levels(-4.0, 0.5).state_dict())
    assert fresh.levels.tolist() == [-4.0, 0.5]


def test_a_learner_with_levels_trains_alike_and_judges_in_its_own_way(workshop: Any) -> None:
    plain = workshop.train("iin", "iin", experiences=3)
    level = workshop.train("iin", "iin", learn={"level": True}, experiences=3)
    assert level.losses == plain.losses
    weights, known = dict(level.weights), dict(plain.weights)
    kept = weights.pop("levels.levels")
    assert weights.keys() == known.keys()
    assert all(torch.equal(weights[name], known[name]) for name in known)

    rows = level.parts.scenario.index("test", "alpha")
    images = next(level.agent.faces(rows)).image
    before, after = plain.parts.learner.eval(), level.parts.learner.eval()
    with torch.no_grad():
        statistics, _ = before._split(before.frozen(images))
        weights = before.router(statistics[:, : before.route_features], before.config.route_temperature)[0].exp()
        assert torch.allclose(after(images).z, before(images).z - weights @ kept, atol=1e-5)
        assert torch.equal(after(images).attribution, before(images).attribution)


def test_the_level_is_that_of_the_type_s_own_real_training_faces(workshop: Any) -> None:
    run = workshop.train("iin", "naive", learn={"level": True}, experiences=1)
    parts, learner = run.parts, run.parts.learner.eval()
    rows = parts.scenario.index("train", "alpha")
    rows = rows[parts.sources.table.rows["label"].to_numpy()[rows] == 0]
    level = float(learner.levels.levels[0])
    with torch.no_grad():
        raw = np.concatenate([learner(batch.image).z.numpy() + level for batch in run.agent.faces(rows)])
    assert level == pytest.approx(float(torch.from_numpy(raw).median()), abs=1e-5)


def test_levels_need_modules(workshop: Any) -> None:
    with pytest.raises(FFDError, match=r"learner\.level reads the types' modules: it needs learner\.intra"):
        workshop.train("iin", learn={"level": True, "intra": False}, experiences=1)
