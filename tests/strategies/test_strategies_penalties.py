"""ewc, si and mas against their formulas, in plain numbers, and their limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from numpy.typing import NDArray

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.ewc import ewc_penalty, fisher_diagonal
from ffd_continual.strategies.importance import at_rest, old_part, quadratic, sample_rows, widened
from ffd_continual.strategies.learner import Learner, Output
from ffd_continual.strategies.mas import output_sensitivity
from ffd_continual.strategies.si import importance_of, path_step

STRONG = {
    "ewc": {"weight": 1e4, "faces": 6},
    "si": {"weight": 1e3},
    "mas": {"weight": 1e3, "faces": 6},
}


class Line(Learner):
    """z = w x + b, on kept features x."""

    def __init__(self, weight: list[float], bias: float):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))
        self.bias = torch.nn.Parameter(torch.tensor(bias))

    def judge(self, frozen: torch.Tensor) -> Output:
        return Output(z=frozen @ self.weight + self.bias, features={"common": frozen})


def _faces(x: list[list[float]], y: list[int]) -> Batch:
    none = torch.zeros(len(y), 0)
    made = dict.fromkeys(Batch._fields, none)
    return Batch(**{**made, "frozen": torch.tensor(x), "target": torch.tensor(y)})


def test_fisher_by_hand_squares_each_face_s_own_gradient() -> None:
    """At w = 0, b = 0: d log p / d z is 1/2 for the forged face, -1/2 for the real one."""
    line = Line([0.0, 0.0], 0.0)
    faces = _faces([[1.0, 2.0], [2.0, 0.0]], [1, 0])
    fisher = fisher_diagonal(line, [faces], dict(line.named_parameters()))
    assert fisher["weight"].tolist() == [(0.25 + 1.0) / 2, (1.0 + 0.0) / 2]
    assert fisher["bias"].item() == 0.25  # the square of the mean gradient would be 0
    parts = [faces.take(torch.tensor([i])) for i in (1, 0)]
    again = fisher_diagonal(line, parts, dict(line.named_parameters()))
    assert torch.equal(again["weight"], fisher["weight"])  # however they are batched


def test_fisher_and_omega_against_loops() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(9, 4)), rng.integers(0, 2, 9)
    w, b = rng.normal(size=4), 0.3
    line = Line(w.tolist(), b)
    faces = _faces(x.tolist(), y.tolist())
    fisher = fisher_diagonal(line, [faces], dict(line.named_parameters()))
    omega = output_sensitivity(line, [faces], dict(line.named_parameters()))
    for j in range(4):
        squares, absolutes = 0.0, 0.0
        for i in range(9):
            z = sum(w[k] * x[i][k] for k in range(4)) + b
            slope = y[i] - 1.0 / (1.0 + math.exp(-z))
            squares += (slope * x[i][j]) ** 2 / 9
            absolutes += abs(2.0 * z * x[i][j]) / 9
        assert float(fisher["weight"][j]) == pytest.approx(squares, rel=1e-5)
        assert float(omega["weight"][j]) == pytest.approx(absolutes, rel=1e-5)


def test_penalties_by_hand() -> None:
    now = {"a": torch.tensor([3.0, 1.0]), "new": torch.tensor([5.0])}
    one = ({"a": torch.tensor([2.0, 1.0])}, {"a": torch.tensor([1.0, 1.0])})  # 2 * 2^2 = 8
    two = ({"a": torch.tensor([0.5, 4.0])}, {"a": torch.tensor([3.0, 2.0])})  # 4 * 1^2 = 4
    assert quadratic(now, *one).item() == 8.0
    assert ewc_penalty(now, [one, two], 10.0).item() == 5.0 * 12.0
    assert quadratic(now, {}, {}).item() == 0.0


def test_a_grown_parameter_is_held_in_its_old_part_only() -> None:
    grown = torch.nn.Parameter(torch.tensor([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0], [9.0, 9.0, 9.0]]))
    known, anchor = {"head": torch.ones(2, 2)}, {"head": torch.zeros(2, 2)}
    penalty = quadratic({"head": grown}, known, anchor)
    assert penalty.item() == 1 + 4 + 9 + 16
    penalty.backward()  # type: ignore[no-untyped-call]
    assert grown.grad is not None
    assert grown.grad.tolist() == [[2.0, 4.0, 0.0], [6.0, 8.0, 0.0], [0.0, 0.0, 0.0]]
    assert widened(known["head"], grown.detach(), "head").tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    with pytest.raises(FFDError, match="head"):
        old_part(torch.zeros(1, 2), known["head"], "head")


def test_si_s_path_is_the_loss_that_a_parameter_brought_down() -> None:
    """Gradient flow on (a p^2 + b q^2) / 2: omega of each parameter is its own share of the fall."""
    value = torch.tensor([1.0, 2.0], dtype=torch.float64)
    scale = torch.tensor([3.0, 0.5], dtype=torch.float64)
    start, path = value.clone(), torch.zeros(2, dtype=torch.float64)
    for _ in range(20000):
        gradient = scale * value
        moved = value - 1e-4 * gradient
        path += path_step(gradient, value, moved)
        value = moved
    fall = 0.5 * scale * (start**2 - value**2)
    assert torch.allclose(path, fall, rtol=1e-3)
    omega = importance_of(torch.tensor([4.0, -1.0]), torch.tensor([0.0, 0.0]), torch.tensor([2.0, 1.0]), 0.5)
    assert omega.tolist() == [pytest.approx(4.0 / 4.5), 0.0]


class _Diary(SupervisedPlugin):  # type: ignore[misc]
    """Gradients before and after the strategy's hook, and values, of one parameter, step by step."""

    def __init__(self, name: str):
        super().__init__()
        self.name, self.rows = name, list[dict[str, Any]]()

    def _parameter(self, strategy: Any) -> torch.nn.Parameter:
        found: torch.nn.Parameter = dict(strategy.learner.named_parameters())[self.name]
        return found

    def _gradient(self, strategy: Any) -> NDArray[np.float64]:
        gradient = self._parameter(strategy).grad
        assert gradient is not None
        return gradient.double().numpy().copy()

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        before = self._parameter(strategy).detach().double().numpy().copy()
        self.rows.append({"pure": self._gradient(strategy), "before": before})

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        self.rows[-1]["both"] = self._gradient(strategy)

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        self.rows[-1]["after"] = self._parameter(strategy).detach().double().numpy().copy()


def test_si_in_a_run_against_a_loop(workshop: Any) -> None:
    diary = _Diary("head.weight")
    run = workshop.train("plain", "si", keep=STRONG["si"], experiences=3, lr=1e-2, plugins=[diary])
    steps, c, xi = run.config.train.steps, 1e3, 0.1
    omega, anchor = np.zeros(diary.rows[0]["pure"].shape), None
    for experience in range(3):
        rows = diary.rows[experience * steps : (experience + 1) * steps]
        path = np.zeros_like(omega)
        for row in rows:
            pull = np.zeros_like(omega) if anchor is None else 2 * c * omega * (row["before"] - anchor)
            np.testing.assert_allclose(row["both"], row["pure"] + pull, rtol=1e-4, atol=1e-5)
            path -= row["pure"] * (row["after"] - row["before"])
        omega += np.maximum(path, 0) / ((rows[-1]["after"] - rows[0]["before"]) ** 2 + xi)
        anchor = rows[-1]["after"]
    assert (omega > 0).any()
    np.testing.assert_allclose(run.parts.keeper.omega["head.weight"].numpy(), omega, rtol=1e-3, atol=1e-7)
    assert all(step["si"] >= 0 for step in run.losses[steps:])


@pytest.mark.parametrize("strategy", sorted(STRONG))
def test_weight_zero_is_naive(workshop: Any, strategy: str) -> None:
    naive = workshop.train("plain", "naive", experiences=2, lr=1e-2)
    off = workshop.train("plain", strategy, keep={**STRONG[strategy], "weight": 0.0}, experiences=2, lr=1e-2)
    on = workshop.train("plain", strategy, keep=STRONG[strategy], experiences=2, lr=1e-2)
    for name, value in naive.weights.items():
        assert torch.equal(value, off.weights[name]), name
    assert off.losses == naive.losses
    assert on.losses[:2] == naive.losses[:2]  # nothing to keep yet
    assert on.losses[-1][strategy] > 0
    assert on.parts.keeper.stored_bytes() > 0


@pytest.mark.parametrize("strategy", sorted(STRONG))
def test_the_penalty_holds_what_is_important(workshop: Any, strategy: str) -> None:
    """Plain gradient descent at a rate that the penalty's curvature stands: with weight, less important movement."""
    weights = {"ewc": 300.0, "si": 100.0, "mas": 1000.0}

    def movement(factor: float) -> float:
        keep = {**STRONG[strategy], "weight": factor * weights[strategy]}
        train = {"steps": 6, "lr": 0.04, "optimizer": "sgd", "clip": 0.0, "schedule": "constant", "warmup": 0.0}
        known: list[Any] = []

        def note(experience: int, parts: Any) -> None:
            keeper = parts.keeper
            if experience == 0:
                known.extend(keeper.past[0] if strategy == "ewc" else (dict(keeper.omega), dict(keeper.anchor)))

        run = workshop.train("plain", strategy, keep=keep, experiences=2, after=note, **train)
        return float(quadratic(dict(run.parts.learner.named_parameters()), *known).detach())

    assert 0 < movement(1.0) < 0.85 * movement(0.0)


def test_online_ewc_decays_the_fisher_and_keeps_one_anchor(workshop: Any) -> None:
    keep = {"weight": 1e3, "faces": 6}
    apart = workshop.train("plain", "ewc", keep=keep, experiences=2, lr=1e-2)
    online = workshop.train("plain", "ewc", keep={**keep, "online": True, "decay": 0.5}, experiences=2, lr=1e-2)
    assert apart.losses == online.losses  # with one past experience they are the same
    (first, _), (second, anchor) = apart.parts.keeper.past
    [(joined, last)] = online.parts.keeper.past
    for name in first:
        assert torch.allclose(joined[name], 0.5 * first[name] + second[name], rtol=1e-6), name
        assert torch.equal(last[name], anchor[name])
    assert 2 * online.parts.keeper.stored_bytes() == apart.parts.keeper.stored_bytes()


def test_gradients_are_of_the_weights_that_train_without_noise(workshop: Any) -> None:
    """IIN judges by a slow copy in evaluation: importance must reach the path that trains; dropout must be off."""
    run = workshop.train("iin", "ewc", keep={"faces": 6}, experiences=1)
    fisher, _ = run.parts.keeper.past[0]
    assert any(bool(value.any()) for name, value in fisher.items() if name.startswith("inter."))
    assert any(bool(value.any()) for name, value in fisher.items() if name.startswith("intra.0."))
    assert not any(name.startswith(("slow.", "trunk.")) for name in fisher)
    _, parts = workshop.parts("plain", learn={"dropout": 0.5})
    batch = next(iter(run.agent.faces(parts.scenario.index("train", "alpha")[:6])))
    parts.learner.train()
    with at_rest(parts.learner), torch.no_grad():
        one, two = parts.learner.look(batch).z, parts.learner.look(batch).z
    with torch.no_grad():
        noisy, other = parts.learner.look(batch).z, parts.learner.look(batch).z
    assert torch.equal(one, two)
    assert not torch.equal(noisy, other)
    assert all(m.training for m in parts.learner.trunk.high.modules())


def test_the_sample_of_faces_is_a_function_of_the_seed(workshop: Any) -> None:
    _, parts = workshop.parts()
    _, other = workshop.parts(seed=1)
    context, rows = parts.keeper.context, parts.scenario.index("train", "alpha")
    chosen = sample_rows(context, 0, 7)
    assert len(set(chosen.tolist())) == 7
    assert set(chosen.tolist()) <= set(rows.tolist())
    assert chosen.tolist() == sample_rows(context, 0, 7).tolist()
    assert chosen.tolist() != sample_rows(other.keeper.context, 0, 7).tolist()
    assert sample_rows(context, 0, 0).tolist() == rows.tolist()
