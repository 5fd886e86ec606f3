"""What DCL's queues cost: full ones of 30,000 keys a class, against a whole step of the small configuration."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from ffd_continual.config import config_from, read_yaml
from ffd_continual.replay.queues import ClassQueues
from ffd_continual.scenarios.batch import Batch
from ffd_continual.strategies.learner import place
from ffd_continual.strategies.learners.dcl import DCL
from ffd_continual.strategies.learners.dcl_losses import inter_loss

FACES, SHARE = 32, 0.02


def _median(run: Callable[[], object], times: int) -> float:
    """Seconds of processor time."""
    run()
    spent = []
    for _ in range(times):
        began = time.process_time()
        run()
        spent.append(time.process_time() - began)
    return statistics.median(spent)


@pytest.mark.slow
def test_thirty_thousand_keys_a_class_cost_a_fiftieth_of_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    run = config_from(read_yaml("dcl_small"))
    torch.manual_seed(0)
    learner = place(DCL(run.learner.config), torch.device("cpu"))
    assert isinstance(learner, DCL)
    side = run.scenario.size
    empty, unknown = torch.zeros(FACES, 0), torch.zeros(FACES, dtype=torch.bool)
    fields = {name: unknown if name.endswith("_known") else empty for name in Batch._fields}
    target = torch.arange(FACES) % 2
    pictures = torch.rand(FACES, 3, side, side)
    mask = torch.zeros(FACES, 1, side, side)
    mask[target == 1, :, : side // 2] = 1.0
    fields |= dict.fromkeys(("target", "forgery", "experience", "video", "row", "task"), target)
    fields |= {"image": pictures, "mask": mask, "mask_known": ~unknown}
    batch = Batch(**fields)
    learner.begin("a")
    learner.meet([batch])
    queues = learner.queues[0]
    assert isinstance(queues, ClassQueues)
    for label in (0, 1):
        queues[label].enqueue(F.normalize(torch.randn(30000, queues[label].features.shape[1]), dim=1))
        assert len(queues[label]) == 30000
    dim = queues[0].features.shape[1]
    query, key = torch.randn(FACES, dim, requires_grad=True), F.normalize(torch.randn(FACES, dim), dim=1)

    def step() -> None:
        learner.zero_grad()
        sum(learner.step(batch)[1].values()).backward()  # type: ignore[union-attr]

    def keep() -> None:
        real, forged = (queues[label].filled()[0] for label in (0, 1))
        inter_loss(query, key, target, real, forged, run.learner.config.tau).backward()  # type: ignore[no-untyped-call]
        queues.enqueue(key, target, target)

    # Processor time of one thread, in turn: other processes on the machine slow both alike.
    rounds = [(_median(step, 5), _median(keep, 15)) for _ in range(3)]
    whole, cost = (min(column) for column in zip(*rounds, strict=True))
    with capsys.disabled():
        print(f"\nstep {1e3 * whole:.0f} ms, queues {1e3 * cost:.1f} ms: {100 * cost / whole:.2f} % (D = {dim})")
    assert cost <= SHARE * whole
