"""lwf, derpp and agem against their formulas, in plain numbers and inside runs, and their limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from avalanche.core import SupervisedPlugin

from ffd_continual.scenarios.dataset import Request, train_batch
from ffd_continual.strategies.agem import project
from ffd_continual.strategies.derpp import dark_loss
from ffd_continual.strategies.lwf import soft_decision_loss
from ffd_continual.strategies.training.plan import StepPlan


def _same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_lwf_is_the_cross_entropy_of_two_softened_softmaxes() -> None:
    new, old, temperature = [-1.0, 0.4, 3.0], [0.5, -2.0, 3.0], 2.0
    total = 0.0
    for z, y in zip(new, old, strict=True):
        soft = [math.exp(v / temperature) for v in (0.0, y)]
        mine = [math.exp(v / temperature) for v in (0.0, z)]
        total -= sum(s / sum(soft) * math.log(m / sum(mine)) for s, m in zip(soft, mine, strict=True)) / len(new)
    found = soft_decision_loss(torch.tensor(new), torch.tensor(old), temperature)
    assert float(found) == pytest.approx(total, rel=1e-6)
    by_hand = soft_decision_loss(torch.tensor([0.0]), torch.tensor([5.0]), 2.0)
    assert float(by_hand) == pytest.approx(math.log(2))


def test_lwf_s_gradient_vanishes_where_old_and_new_agree() -> None:
    old = torch.tensor([-3.0, 0.1, 2.0])
    new = old.clone().requires_grad_()
    soft_decision_loss(new, old, 2.0).backward()  # type: ignore[no-untyped-call]
    assert new.grad is not None
    assert float(new.grad.abs().max()) < 1e-7
    higher = torch.tensor([3.0], requires_grad=True)
    soft_decision_loss(higher, torch.tensor([0.0]), 2.0).backward()  # type: ignore[no-untyped-call]
    assert higher.grad is not None
    assert float(higher.grad) == pytest.approx((1 / (1 + math.exp(-1.5)) - 0.5) / 2, rel=1e-5)


def test_dark_loss_by_hand() -> None:
    assert dark_loss(torch.tensor([1.0, -2.0]), torch.tensor([0.0, 1.0])).item() == (1.0 + 9.0) / 2


def test_projection_by_hand_and_against_a_loop() -> None:
    [kept] = project([torch.tensor([1.0, -1.0])], [torch.tensor([0.0, 2.0])])
    assert kept.tolist() == [1.0, 0.0]
    agreeing = [torch.tensor([1.0, 1.0])]
    assert project(agreeing, [torch.tensor([0.0, 2.0])])[0] is agreeing[0]
    rng = np.random.default_rng(0)
    g, r = [rng.normal(size=s) for s in ((3, 2), (4,))], [rng.normal(size=s) for s in ((3, 2), (4,))]
    flat_g = [float(v) for part in g for v in part.ravel()]
    flat_r = [float(v) for part in r for v in part.ravel()]
    if sum(a * b for a, b in zip(flat_g, flat_r, strict=True)) >= 0:
        flat_r, r = [-v for v in flat_r], [-part for part in r]
    dot, length = sum(a * b for a, b in zip(flat_g, flat_r, strict=True)), sum(b * b for b in flat_r)
    expected = [a - dot / length * b for a, b in zip(flat_g, flat_r, strict=True)]
    made = project([torch.tensor(part) for part in g], [torch.tensor(part) for part in r])
    flat = torch.cat([part.flatten() for part in made])
    assert flat.tolist() == pytest.approx(expected)
    assert float(flat @ torch.tensor(flat_r, dtype=torch.float64)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("strategy", "off"), [("lwf", {"weight": 0.0}), ("derpp", {"exemplars": 0}), ("agem", {"exemplars": 0})]
)
def test_switched_off_they_are_naive(workshop: Any, strategy: str, off: dict[str, Any]) -> None:
    naive = workshop.train("plain", "naive", experiences=2, lr=1e-2)
    silent = workshop.train("plain", strategy, keep=off, experiences=2, lr=1e-2)
    loud = workshop.train("plain", strategy, experiences=2, lr=1e-2)
    assert _same(naive.weights, silent.weights)
    assert naive.losses == silent.losses
    assert loud.losses[:2] == naive.losses[:2]  # nothing to keep yet
    assert not _same(naive.weights, loud.weights)


class _Gradients(SupervisedPlugin):  # type: ignore[misc]
    """At each step: the learner's gradient, the one after the strategy's hook, and what was set aside."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    @staticmethod
    def _flat(strategy: Any) -> torch.Tensor:
        return torch.cat([p.grad.flatten() for p in strategy.learner.parameters() if p.grad is not None]).clone()

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.rows.append({"apart": strategy.keeper._apart, "current": strategy.mbatch})

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        faces, row = self.rows[-1]["apart"], self.rows[-1]
        row["made"] = self._flat(strategy)
        if faces is None:
            return
        learner, parameters = strategy.learner, [p for p in strategy.learner.parameters() if p.grad is not None]

        def gradient(loss: torch.Tensor) -> torch.Tensor:
            return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

        row["own"] = gradient(
            F.binary_cross_entropy_with_logits(learner.look(row["current"]).z, row["current"].target.float())
        )
        z, half = learner.look(faces).z, (len(faces.target) + 1) // 2
        row["reference"] = gradient(F.binary_cross_entropy_with_logits(z, faces.target.float()))
        z = learner.look(faces).z
        if hasattr(strategy.keeper, "stored_logits"):
            table = strategy.keeper.memory.table
            logits = torch.tensor([float(table.logit[table.row.tolist().index(int(r))]) for r in faces.row[:half]])
            assert not bool(torch.isnan(logits).any())
            labels = F.binary_cross_entropy_with_logits(z[half:], faces.target[half:].float())
            row["dark"] = gradient(0.7 * ((z[:half] - logits) ** 2).mean() + 0.4 * labels)


def test_derpp_adds_the_gradient_of_both_terms(workshop: Any) -> None:
    diary = _Gradients()
    keep = {"alpha": 0.7, "beta": 0.4}
    run = workshop.train("plain", "derpp", keep=keep, experiences=2, steps=3, batch=12, plugins=[diary])
    assert all(row["apart"] is None for row in diary.rows[:3])
    for row in diary.rows[3:]:
        assert len(row["apart"].target) == 4
        assert len(row["current"].target) == 8
        assert torch.allclose(row["made"], row["own"] + row["dark"], rtol=1e-3, atol=1e-5)
    assert {"derpp_logits", "derpp_labels"} <= run.losses[-1].keys()
    table = run.parts.sources.table
    assert run.parts.keeper.stored_bytes() == 8 * (table.pictures[0].nbytes + 4)


def test_derpp_s_stored_logits_are_those_of_the_moment(workshop: Any) -> None:
    seen: list[dict[int, float]] = []

    def note(experience: int, parts: Any) -> None:
        parts.learner.eval()
        rows = parts.keeper.remembered()
        with torch.no_grad():
            z = parts.learner(train_free(parts, rows)).z
        seen.append(dict(zip(rows.tolist(), z.tolist(), strict=True)))

    def train_free(parts: Any, rows: Any) -> torch.Tensor:
        pictures = np.stack([parts.sources.table.pictures[parts.sources.table.slot[r]] for r in rows])
        return torch.from_numpy(pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255)

    run = workshop.train("plain", "derpp", experiences=2, after=note, lr=1e-2)
    table = run.parts.keeper.memory.table
    for row, logit, forgery in zip(table.row.tolist(), table.logit.tolist(), table.forgery.tolist(), strict=True):
        then = seen[0] if forgery == "alpha" else seen[1]
        assert logit == pytest.approx(then[row], abs=1e-4)
    assert set(table.forgery) == {"alpha", "beta"}


def test_derpp_draws_twice(workshop: Any) -> None:
    parts = workshop.train("plain", "derpp", experiences=1).parts
    rows = parts.keeper.draw(9, np.random.default_rng(4))
    rng = np.random.default_rng(4)
    memory = parts.keeper.memory
    assert rows.tolist() == [*memory.draw(5, rng).tolist(), *memory.draw(4, rng).tolist()]


def test_agem_projects_where_the_memory_disagrees(workshop: Any) -> None:
    diary = _Gradients()
    train = {"steps": 8, "batch": 12, "lr": 2e-2}
    run = workshop.train("plain", "agem", experiences=3, plugins=[diary], **train)
    turned = 0
    for row in diary.rows[8:]:
        dot = float(row["own"] @ row["reference"])
        expected = row["own"]
        if dot < 0:
            turned += 1
            expected = row["own"] - dot / float(row["reference"] @ row["reference"]) * row["reference"]
        assert torch.allclose(row["made"], expected, rtol=1e-2, atol=1e-4)
        assert float(row["made"] @ row["reference"]) > -1e-4
    assert 0 < turned < 16
    assert all(step.keys() == {"decision", "loss"} for step in run.losses)  # stored faces are never fitted


def test_what_is_set_aside_is_the_plan_s_draw_also_in_micro_batches(workshop: Any) -> None:
    whole, pieces = _Gradients(), _Gradients()
    one = workshop.train("plain", "derpp", experiences=2, batch=12, plugins=[whole])
    two = workshop.train("plain", "derpp", experiences=2, batch=12, accumulate=3, plugins=[pieces])
    parts = workshop.train("plain", "derpp", experiences=1, batch=12).parts
    plan = StepPlan(parts.keeper, parts.sources, 1, 12, 0, 2)
    for step in range(2):
        batch = train_batch(parts.sources, Request(plan.rows(step), 1, step))
        for diary in (whole, pieces):
            assert torch.equal(diary.rows[2 + step]["apart"].row, batch.row[8:])
            assert torch.equal(diary.rows[2 + step]["current"].row, batch.row[:8])
    assert all(math.isfinite(step["loss"]) for run in (one, two) for step in run.losses)


@pytest.mark.parametrize("strategy", ["lwf", "derpp", "agem"])
def test_they_learn_from_kept_features(workshop: Any, strategy: str) -> None:
    still = {"pooling": "statistics", "features": 8}
    run = workshop.train("plain", strategy, learn=still, experiences=2, kept_views=2)
    naive = workshop.train("plain", "naive", learn=still, experiences=2, kept_views=2)
    assert run.losses[:2] == naive.losses[:2]
    assert not _same(run.weights, naive.weights)


def test_a_teacher_is_asked_about_the_faces_that_the_learner_judged(workshop: Any) -> None:
    """With self-blended faces in the learner's step, both look at the batch as it is."""
    run = workshop.train("plain", "lwf", learn={"pseudo": 1.0}, experiences=1)
    agent, keeper = run.agent, run.parts.keeper
    keeper.teacher.take(agent.learner)
    plan = StepPlan(keeper, run.parts.sources, 1, 8, 0, 1)
    agent.mbatch = train_batch(run.parts.sources, Request(plan.rows(0), 1, 0))
    agent.learner.eval()
    with torch.no_grad():
        agent.out, _ = agent.learner.step(agent.mbatch)
        new, old = keeper.teacher.pair(agent)
    assert torch.equal(new.z, old.z)
    assert not torch.equal(agent.out.z, old.z)
