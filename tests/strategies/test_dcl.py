"""DCL as a learner: its limits, its switches, its two encoders, and what it carries from experience to experience."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ffd_continual.replay.queues import ClassQueues
from ffd_continual.scenarios.dataset import Request, train_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import place
from ffd_continual.strategies.learners.dcl import DCL, DCLConfig
from ffd_continual.strategies.learners.dcl_views import DataViewConfig, draw_data_view, show
from ffd_continual.strategies.learners.plain import Plain, PlainConfig
from ffd_continual.strategies.learners.trunk import TrunkConfig

TRUNK = TrunkConfig("test_efficientnet", "none", 2)


def settings(**given: Any) -> DCLConfig:
    return DCLConfig(**{"trunk": TRUNK, "map_stages": 5, "queue": 64, **given})


def built(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    return kind(config)


@pytest.fixture(scope="module")
def batch(workshop: Any) -> Any:
    _, parts = workshop.parts("dcl")
    return train_batch(parts.sources, Request(tuple(int(r) for r in parts.scenario.index("train", "alpha")), 0, 0))


def ready(batch: Any, **given: Any) -> DCL:
    learner: DCL = built(DCL, settings(**given))
    learner.begin("alpha")
    learner.meet([batch])
    return learner


def _queues(learner: DCL) -> ClassQueues:
    queues = learner.queues[0]
    assert isinstance(queues, ClassQueues)
    return queues


def summed(learner: Any, batch: Any) -> dict[str, float]:
    torch.manual_seed(1)
    _, losses = learner.step(batch)
    sum(losses.values()).backward()
    return {name: float(loss.detach()) for name, loss in losses.items()}


# Limits -------------------------------------------------------------------------------------------------------------


def test_phi_zero_has_the_gradients_of_plain_fine_tuning_on_the_first_view(batch: Any) -> None:
    """The same trunk and fc from the same seed: gradients of both equal plain BCE on v_1(x), bit for bit."""
    learner = ready(batch, map_stages=0, inter=False, phi=0.0, phi_start=0.0)
    contrasted = ready(batch, phi=0.0, phi_start=0.0)  # with the queues in use too
    for made, stages in ((learner, 0), (contrasted, 5)):
        plain = built(Plain, PlainConfig(TRUNK, trunk_lr=1.0))
        if stages:
            plain.trunk.high = plain.trunk.high[: stages - TRUNK.frozen_stages]
            plain.head = made.head.__class__(made.trunk.channels, 1)
            plain.head.load_state_dict(made.head.state_dict())
        summed(made, batch)
        torch.manual_seed(1)
        view = show(DataViewConfig(), draw_data_view(DataViewConfig(), len(batch.target)), batch)
        summed(plain, batch._replace(image=view.image))
        own = dict(made.named_parameters())
        for name, parameter in plain.named_parameters():
            if parameter.grad is not None:
                assert float(parameter.grad.abs().max()) > 0
                gradient = own[name].grad
                assert gradient is not None
                assert torch.equal(gradient, parameter.grad), name
        squeezed = (own[f"squeeze.{n}"].grad for n in ("weight", "bias"))
        assert all(gradient is None or not gradient.any() for gradient in squeezed)


def test_without_its_parts_it_is_the_plain_learner_through_a_whole_run(workshop: Any) -> None:
    off = {"inter": False, "intra": False, "special_views": False, "map_stages": 0}
    dcl = workshop.train("dcl", "replay", learn=off, experiences=2)
    plain = workshop.train("plain", "replay", learn={"trunk_lr": 1.0}, experiences=2)
    assert dcl.losses == plain.losses
    for name, value in plain.weights.items():
        assert torch.equal(dcl.weights[name], value), name


def test_phi_one_leaves_the_classifier_alone(batch: Any) -> None:
    learner = ready(batch, phi=1.0, phi_start=1.0)
    losses = summed(learner, batch)
    assert losses["decision"] == 0.0
    assert learner.head.weight.grad is not None
    assert not learner.head.weight.grad.any()


def test_eq_10_weighs_by_phi_and_phi_follows_progress(batch: Any) -> None:
    early, late = ready(batch), ready(batch)
    late.progress = 0.5
    one, two = summed(early, batch), summed(late, batch)
    assert one["decision"] / 0.9 == pytest.approx(two["decision"] / 0.5, rel=1e-6)
    for name in ("intra_real", "intra_forged"):
        assert one[name] / 0.1 == pytest.approx(two[name] / 0.5, rel=1e-6)
        assert one[name] != 0.0
    later = ready(batch)
    later.begin("beta")
    assert summed(later, batch)["decision"] == two["decision"]  # the warm-up is the first experience's


# The two encoders ---------------------------------------------------------------------------------------------------


def test_the_key_encoder_is_the_moving_average_of_weights_and_normalisation(workshop: Any) -> None:
    """Three steps: theta' <- 0.9 theta' + 0.1 theta from each step's starting point, statistics too (Eq. 1)."""
    seen: list[dict[str, torch.Tensor]] = []
    _, parts = workshop.parts("dcl", learn={"beta": 0.9, "trunk": {**_tiny(), "frozen_stages": 3}})
    learner = parts.learner
    rows = tuple(int(r) for r in parts.scenario.index("train", "alpha"))
    batches = [train_batch(parts.sources, Request(rows, 0, step)) for step in range(3)]
    learner.begin("alpha")
    learner.meet(batches)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    expected = {k: v.double().clone() for k, v in learner.trunk.high.state_dict().items()}
    for batch in batches:
        seen.append({k: v.clone() for k, v in learner.trunk.high.state_dict().items()})
        optimizer.zero_grad()
        sum(learner.step(batch)[1].values()).backward()
        optimizer.step()
        for name, value in seen[-1].items():
            expected[name] = 0.9 * expected[name] + 0.1 * value.double()
    own = learner.key_trunk.state_dict()
    averaged = [n for n in own if own[n].is_floating_point()]
    assert any("running_mean" in n for n in averaged)
    for name in averaged:
        assert torch.allclose(own[name].double(), expected[name], atol=1e-6), name
    moved = [n for n in averaged if not torch.equal(own[n], learner.trunk.high.state_dict()[n])]
    assert any("running_mean" in n for n in moved)
    assert any(n.endswith("weight") for n in moved)
    assert not any(p.requires_grad or p.grad is not None for p in learner.key_trunk.parameters())
    assert not learner.train().key_trunk.training


def _tiny() -> dict[str, Any]:
    return {"backbone": "test_efficientnet", "weights": "none"}


def test_judging_reads_the_query_encoder_and_fc_alone(batch: Any) -> None:
    learner = ready(batch).eval()
    with torch.no_grad():
        before = learner(batch.image)
        for part in (learner.key_trunk, learner.key_squeeze, learner.squeeze, learner.queues):
            for value in part.state_dict().values():
                value.fill_(3)
        after = learner(batch.image)
    assert torch.equal(before.z, after.z)
    assert before.maps == {}
    maps = learner.trunk(batch.image)
    assert torch.allclose(before.features["common"], maps.mean((2, 3)), atol=1e-6)
    assert torch.allclose(before.z, (before.features["common"] @ learner.head.weight.T + learner.head.bias)[:, 0])


def test_keys_are_those_of_the_second_view_and_carry_their_rows(batch: Any) -> None:
    learner = ready(batch, hard=False, special_views=False)
    batch = batch._replace(view2=batch.image.flip(3))
    summed(learner, batch)
    with torch.no_grad():
        expected = learner.key_squeeze(learner.key_trunk(learner.trunk.extract(batch.view2))).flatten(1)
    queues = _queues(learner)
    for label in (0, 1):
        stored, rows = queues[label].filled()
        mine = batch.target == label
        assert torch.equal(rows, batch.row[mine])
        assert torch.allclose(stored, torch.nn.functional.normalize(expected[mine], dim=1), atol=1e-5)


# Continual ----------------------------------------------------------------------------------------------------------


def test_state_survives_growth_and_continues_bit_for_bit(workshop: Any) -> None:
    """After two experiences, a fresh learner that took the state goes on as the first one does."""
    run = workshop.train("dcl", "naive", experiences=2)
    state = run.weights
    assert any(name.startswith("queues.0.queues.1.features") for name in state)
    assert int(state["queues.0.queues.1.offered"]) == 2 * run.config.train.steps * run.config.train.batch // 2
    config, parts = workshop.parts("dcl", "naive")
    for name in run.parts.learner.growth:
        parts.learner.begin(name)
    parts.learner.load_state_dict(state)
    place(parts.learner, parts.device)
    again = parts.agent(config.train)
    for agent, made in ((run.agent, run.parts), (again, parts)):
        agent.position = (2, 0)
        agent.train(made.benchmark.train_stream[2], eval_streams=[])
    continued = parts.learner.state_dict()
    for name, value in run.parts.learner.state_dict().items():
        assert torch.equal(continued[name], value), name
    assert not torch.equal(continued["key_squeeze.weight"], state["key_squeeze.weight"])
    offered = int(continued["queues.0.queues.0.offered"])
    assert offered > int(state["queues.0.queues.0.offered"])  # the queue of before goes on, and is not begun anew


def test_gauges_and_costs_tell_the_admission_rate(batch: Any) -> None:
    learner = ready(batch)
    assert learner.gauges()["admission_real"] == 1.0
    assert learner.gauges()["queue_real"] == 0.0
    for step in range(4):
        torch.manual_seed(step)
        learner.step(batch)
    gauges = learner.gauges()
    for label, name in enumerate(("real", "forged")):
        queue = _queues(learner)[label]
        assert gauges[f"admission_{name}"] == int(queue.admitted) / (4 * int((batch.target == label).sum()))
        assert gauges[f"queue_{name}"] == len(queue) / 64
    assert min(gauges["admission_real"], gauges["admission_forged"]) > 0
    assert gauges.items() <= learner.costs().items()
    key = learner.costs()["key_encoder_parameters"]
    assert key == sum(p.numel() for p in [*learner.trunk.high.parameters(), *learner.squeeze.parameters()])


# Switches -----------------------------------------------------------------------------------------------------------


THETA = {"theta": 0.97}  # keys of a small random network are alike: here it lets some in, and keeps some out


@pytest.fixture(scope="module")
def full(workshop: Any) -> Any:
    return workshop.train("dcl", learn=THETA, experiences=1, steps=4)


TERMS = {"decision", "inter", "intra_real", "intra_forged", "loss"}


@pytest.mark.parametrize(
    ("learn", "gone"),
    [
        ({"inter": False}, {"inter"}),
        ({"intra": False}, {"intra_real", "intra_forged"}),
        ({"inter": False, "intra": False}, {"inter", "intra_real", "intra_forged"}),
        ({"special_views": False}, set()),
        ({"hard": False}, set()),
        ({"self_pairs": False}, set()),
        ({"data_views": {"patch": 0.0}}, set()),
        ({"data_views": {"high_frequency": 0.0}}, set()),
        ({"data_views": {"mixup": 0.0}}, set()),
        ({"map_stages": 6}, set()),
        ({"theta": 1.0}, set()),
    ],
    ids=lambda given: str(sorted(given)) if isinstance(given, set) else str(given),
)
def test_a_switch_changes_terms_or_training(workshop: Any, full: Any, learn: dict[str, Any], gone: set[str]) -> None:
    if learn == {"map_stages": 6}:
        learn = {**learn, "inter": False}  # a single location there
        gone = {"inter"}
    run = workshop.train("dcl", learn={**THETA, **learn}, experiences=1, steps=4)
    terms = {name for step in run.losses for name in step}
    assert {name for step in full.losses for name in step} == TERMS
    assert TERMS - terms == gone
    assert run.losses != full.losses
    assert any("queues" in name for name in run.weights) == ("inter" not in learn)


def test_hard_samples_are_fewer_than_all(workshop: Any, full: Any) -> None:
    every = workshop.train("dcl", learn={"hard": False}, experiences=1, steps=4).parts.learner.gauges()
    none = workshop.train("dcl", learn={"theta": 1.0}, experiences=1, steps=4).parts.learner.gauges()
    assert every["admission_real"] == every["admission_forged"] == 1.0
    assert none["admission_real"] == none["admission_forged"] == 0.0
    assert 0.0 < sum(full.parts.learner.gauges()[f"admission_{name}"] for name in ("real", "forged")) < 2.0


def test_forged_faces_whose_pixels_nobody_knows_take_no_part_in_eq_7(batch: Any) -> None:
    none, no = torch.zeros(len(batch.target), 0), torch.zeros(len(batch.target), dtype=torch.bool)
    losses = summed(ready(batch), batch._replace(pair=none, pair_known=no, mask=none, mask_known=no))
    assert losses["intra_forged"] == 0.0
    assert losses["intra_real"] != 0.0


def test_a_map_of_one_location_is_refused_before_the_first_step(workshop: Any) -> None:
    with pytest.raises(FFDError, match="single location"):
        workshop.train("dcl", learn={"map_stages": 0}, experiences=1)
