"""CoReD: its bins and terms against loops over a run's own faces, and its limit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ffd_continual.scenarios.dataset import plain_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.training.template import FaceStrategy


def test_the_teacher_s_bins_and_both_terms_follow_a_loop(workshop: Any) -> None:
    """A step of the second experience, redone face by face with the learner as the first experience left it."""
    run = workshop.train("plain", "cored", keep={"exemplars": 12}, experiences=1, steps=4, lr=1e-2)
    keeper, agent = run.parts.keeper, run.agent
    old, batch = run.step_of_the_second()

    def ask(row: int) -> tuple[float, np.ndarray[Any, Any]]:
        with torch.no_grad():
            out = old(plain_batch(run.parts.sources, [row]).image)
        return float(out.z[0]), out.features["common"][0].double().numpy()

    def place(z: float, label: int) -> int | None:
        own = 1.0 / (1.0 + math.exp(-z if label else z))
        return None if own < 0.5 else min(4, math.floor((own - 0.5) / 0.1))

    cells: dict[tuple[int, int], list[np.ndarray[Any, Any]]] = {}
    for row, label in zip(keeper.memory.table.row.tolist(), keeper.memory.table.label.tolist(), strict=True):
        z, feature = ask(row)
        found = place(z, label)
        if found is not None:
            cells.setdefault((label, found), []).append(feature)
    assert len(keeper.remembered()) == 12
    assert cells
    for (label, number), members in cells.items():
        assert int(keeper.counts[label, number]) == len(members)
        assert np.allclose(keeper.means[label, number].double().numpy(), sum(members) / len(members), atol=1e-4)
    assert int(keeper.counts.sum()) == sum(len(members) for members in cells.values())

    with torch.no_grad():
        taught = old(batch.image)
    divergence, squares = [], []
    for face in range(len(batch.target)):
        label, z = int(batch.target[face]), float(taught.z[face])
        p, q = (1.0 / (1.0 + math.exp(-v / 2.0)) for v in (z, float(agent.out.z[face])))
        divergence.append(4.0 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))))
        own = place(z, label)
        if own is not None and (label, own) in cells:
            mean = sum(cells[label, own]) / len(cells[label, own])
            squares.append(float(((agent.out.features["common"][face].detach().double().numpy() - mean) ** 2).mean()))
    assert float(agent.losses["keep_logit"]) == pytest.approx(np.mean(divergence), rel=1e-3, abs=1e-6)
    assert squares
    assert float(agent.losses["representation"]) == pytest.approx(np.mean(squares), rel=1e-3)
    both = agent.losses["keep_logit"] + agent.losses["representation"]
    assert float(agent.loss.detach()) == pytest.approx(float(both))


def test_without_its_terms_it_is_replay(workshop: Any) -> None:
    off = {"logit_weight": 0.0, "representation_weight": 0.0}
    replay = workshop.train("plain", "replay", experiences=2)
    silent = workshop.train("plain", "cored", keep=off, experiences=2)
    assert silent.losses == replay.losses
    assert all(torch.equal(replay.weights[name], value) for name, value in silent.weights.items())


def test_kept_features_and_learners_that_blend_work_too(workshop: Any) -> None:
    for learner, learn in (("iin", {}), ("plain", {"pooling": "statistics", "pseudo": 0.5})):
        run = workshop.train(learner, "cored", learn=learn, experiences=2, kept_views=1)
        assert run.losses[-1]["keep_logit"] >= 0
        assert all(math.isfinite(value) for step in run.losses for value in step.values())
    assert isinstance(run.agent, FaceStrategy)


def test_no_bins_are_refused(workshop: Any) -> None:
    with pytest.raises(FFDError, match=r"strategy.bins=0"):
        workshop.parts("plain", "cored", keep={"bins": 0})
