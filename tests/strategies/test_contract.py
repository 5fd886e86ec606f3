"""What every learner keeps to under every strategy, and the limits in which methods must coincide bit for bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from avalanche.training.plugins import EWCPlugin, LwFPlugin

from ffd_continual.load import known_methods
from ffd_continual.strategies.learner import Learner, two_logits
from ffd_continual.strategies.strategy import Strategy
from ffd_continual.strategies.training.stock import Stock

LEARNERS, STRATEGIES = sorted(known_methods(Learner)), sorted(known_methods(Strategy))
ONLY = {"er_ace": "ce"}  # strategies that are defined for one learner, as configured in SETTINGS
SETTINGS = {"er_ace": {"classes": "many"}}
STEPS = {"wavelet": 1}  # half a second each; one an experience shows the same
PAIRS = [(ONLY.get(s, "plain"), s) for s in STRATEGIES] + [(n, "replay") for n in LEARNERS if n != "plain"]


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].numpy().tobytes() == b[k].numpy().tobytes() for k in a)


def test_the_known_methods_are_those_that_the_project_promises() -> None:
    assert {"iin", "plain"} <= set(LEARNERS)
    assert {"naive", "replay", "iin", "joint", "cumulative"} <= set(STRATEGIES)
    generic = {"ewc", "si", "mas", "lwf", "derpp", "agem", "gdumb", "nearest_mean", "frozen", "er_ace"}
    assert generic <= set(STRATEGIES)


@pytest.mark.parametrize(("learner", "strategy"), PAIRS)
def test_every_method_learns_three_experiences(workshop: Any, learner: str, strategy: str) -> None:
    before: dict[str, Any] = {}

    def look(experience: int, parts: Any) -> None:
        table = parts.sources.table
        now = {"pictures": table.pictures.tobytes(), "masks": table.masks.tobytes(), "rows": table.rows.to_csv()}
        assert before.setdefault("table", now) == now

    learn, steps = SETTINGS.get(strategy), STEPS.get(learner, 2)
    run = workshop.train(learner, strategy, learn, after=look, steps=steps)
    assert len(run.losses) == 3 * steps
    assert all(math.isfinite(value) for step in run.losses for value in step.values())
    assert run.parts.learner.growth == ["alpha", "beta", "gamma"]
    rows = run.parts.scenario.index("test", "alpha")
    run.parts.learner.eval()
    with torch.no_grad():
        out = run.parts.learner(next(run.agent.faces(rows)).image)
    z = run.parts.keeper.decide(out)
    assert z.shape == (len(rows),)
    assert bool(torch.isfinite(z).all())
    assert out.features["common"].shape[0] == len(rows)
    assert run.parts.keeper.stored_bytes() >= 0

    again = workshop.train(learner, strategy, learn, steps=steps)
    other = workshop.train(learner, strategy, learn, experiences=1, steps=steps, seed=1)
    assert again.losses == run.losses
    assert _same(again.weights, run.weights)
    assert other.losses[0] != run.losses[0]


@pytest.mark.parametrize("learner", [pytest.param(n, marks=[pytest.mark.slow] if n in STEPS else []) for n in LEARNERS])
def test_replay_without_exemplars_is_naive(workshop: Any, learner: str) -> None:
    naive = workshop.train(learner, "naive", experiences=2)
    replay = workshop.train(learner, "replay", keep={"exemplars": 0}, experiences=2)
    full = workshop.train(learner, "replay", experiences=2)
    assert _same(naive.weights, replay.weights)
    assert not _same(naive.weights, full.weights)


def test_iin_strategy_without_distillation_is_replay(workshop: Any) -> None:
    off = {"logit_weight": 0.0, "feature_weight": 0.0, "evidence_weight": 0.0}
    replay = workshop.train("iin", "replay", experiences=2)
    silent = workshop.train("iin", "iin", keep=off, experiences=2)
    loud = workshop.train("iin", "iin", experiences=2)
    assert _same(replay.weights, silent.weights)
    assert replay.losses == silent.losses
    assert not _same(replay.weights, loud.weights)


def test_learning_leaves_the_global_random_state_of_growth_alone(workshop: Any) -> None:
    """Growth draws from a generator of its own: what was drawn before a run changes nothing."""
    torch.manual_seed(1)
    one = workshop.train("iin", "iin", experiences=2)
    torch.manual_seed(2)
    torch.rand(7)
    two = workshop.train("iin", "iin", experiences=2)
    assert _same(one.weights, two.weights)


def test_accumulated_micro_batches_give_the_whole_batch_s_gradient(workshop: Any) -> None:
    """Plain learner, normalisation fixed: the mean of equal pieces' gradients is the batch's."""
    trunk = {"backbone": "test_efficientnet_ln", "weights": "none", "frozen_stages": 2}
    whole = workshop.train("plain", learn={"trunk": trunk}, experiences=1, steps=1)
    pieces = workshop.train("plain", learn={"trunk": trunk}, experiences=1, steps=1, accumulate=4)
    for name, value in whole.parts.learner.named_parameters():
        other = dict(pieces.parts.learner.named_parameters())[name]
        assert (value.grad is None) == (other.grad is None), name
        if value.grad is not None:
            assert torch.allclose(value.grad, other.grad, atol=2e-5), name


def test_two_logits_make_cross_entropy_the_binary_one() -> None:
    z, target = torch.tensor([-3.0, 0.2, 5.0]), torch.tensor([0, 1, 0])
    two = torch.nn.functional.cross_entropy(two_logits(z), target)
    assert torch.allclose(two, torch.nn.functional.binary_cross_entropy_with_logits(z, target.float()))


@pytest.mark.parametrize(
    "plugin", [lambda: EWCPlugin(ewc_lambda=1e4), lambda: LwFPlugin(alpha=10.0)], ids=["ewc", "lwf"]
)
def test_stock_plugins_run_and_change_the_loss(workshop: Any, plugin: Any) -> None:
    plain = workshop.train("plain", "naive", experiences=2, lr=1e-2)
    kept = workshop.train("plain", "naive", experiences=2, lr=1e-2, plugins=[Stock(plugin())])
    steps = plain.config.train.steps
    assert kept.losses[:steps] == plain.losses[:steps]  # nothing to keep yet
    assert kept.losses[-1]["loss"] > kept.losses[-1]["decision"]
    assert kept.losses[steps:] != plain.losses[steps:]
