"""Every learner under every strategy, three tiny experiences each: it learns, or says in one message why it cannot."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ffd_continual.load import known_methods
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Learner
from ffd_continual.strategies.strategy import Strategy

LEARNERS, STRATEGIES = sorted(known_methods(Learner)), sorted(known_methods(Strategy))
SETTINGS: dict[str, dict[str, Any]] = {"ce": {"classes": "many"}}
KEEP: dict[str, dict[str, Any]] = {"ewc": {"faces": 4}, "mas": {"faces": 4}}


def _refusal(learner: str, strategy: str) -> str | None:
    """What a pair that cannot work must say."""
    if strategy == "er_ace" and learner != "ce":
        return "nothing is ever left out: that is strategy replay"
    if (learner, strategy) == ("wavelet", "frozen"):
        return "calls no part of it `trunk`"
    if (learner, strategy) == ("iin", "hdp"):
        return "no gradient reaches the pixels"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("learner", LEARNERS)
def test_any_learner_under_any_strategy(workshop: Any, learner: str, strategy: str) -> None:
    refusal = _refusal(learner, strategy)
    if refusal is not None:
        with pytest.raises(FFDError, match=refusal):
            workshop.train(learner, strategy, SETTINGS.get(learner), KEEP.get(strategy))
        return
    run = workshop.train(learner, strategy, SETTINGS.get(learner), KEEP.get(strategy))
    assert len(run.losses) == 3 * run.config.train.steps
    assert all(math.isfinite(value) for step in run.losses for value in step.values())
    keeper, model = run.parts.keeper, run.parts.learner.eval()
    batch = next(run.agent.faces(run.parts.scenario.index("test", "beta")))
    with torch.no_grad():
        z = keeper.decide(model(batch.image))
    assert z.shape == batch.target.shape
    assert bool(torch.isfinite(z).all())
    tensors, values = keeper.state_dict()
    _, fresh = workshop.parts(learner, strategy, SETTINGS.get(learner), KEEP.get(strategy))
    fresh.keeper.load_state_dict((tensors, values))
    mine, my_values = fresh.keeper.state_dict()
    assert {k: v.numpy().tobytes() for k, v in mine.items()} == {k: v.numpy().tobytes() for k, v in tensors.items()}
    assert my_values == values
