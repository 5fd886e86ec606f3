"""Every switch of IIN does something: it removes parameters or a named loss, and the training differs."""

from __future__ import annotations

from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def full(workshop: Any) -> Any:
    return workshop.train("iin", "iin", experiences=2)


def _terms(run: Any) -> set[str]:
    return {name for step in run.losses for name in step}


def _names(run: Any) -> set[str]:
    return {name for name, _ in run.parts.learner.named_parameters()}


def test_the_full_method_has_every_term(full: Any) -> None:
    wanted = {"common", "intra", "decouple", "rebuild", "mask", "trace", "contrast"}
    assert _terms(full) == wanted | {"loss", "keep_logit", "keep_feature", "keep_trace"}
    for step in full.losses:
        assert step["loss"] == pytest.approx(sum(v for k, v in step.items() if k != "loss"), rel=1e-5)


@pytest.mark.parametrize(
    ("learn", "gone"),
    [
        ({"intra": False}, {"intra", "decouple", "rebuild"}),
        ({"inter": False}, {"contrast"}),
        ({"decouple": False}, {"decouple", "rebuild"}),
        ({"ftmm": False}, {"mask", "trace", "keep_trace"}),
        ({"pretext": 0.0}, set()),
        ({"contrast_weight": 0.0}, set()),
        ({"slow_judge": False}, set()),
        ({"intra_start": True}, set()),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_a_learner_s_switch_changes_training(workshop: Any, full: Any, learn: dict[str, Any], gone: set[str]) -> None:
    run = workshop.train("iin", "iin", learn=learn, experiences=2)
    assert _terms(full) - _terms(run) == gone
    assert _terms(run) <= _terms(full)
    assert run.losses != full.losses
    if "intra" in learn:
        assert not any(name.startswith("intra.") for name in _names(run))
        assert any(name.startswith("intra.1.") for name in _names(full))


@pytest.mark.parametrize(
    ("keep", "gone"),
    [
        ({"logit_weight": 0.0}, {"keep_logit"}),
        ({"feature_weight": 0.0}, {"keep_feature"}),
        ({"evidence_weight": 0.0}, {"keep_trace"}),
    ],
    ids=["logit", "feature", "evidence"],
)
def test_a_distillation_weight_of_zero_removes_its_term(
    workshop: Any, full: Any, keep: dict[str, float], gone: set[str]
) -> None:
    run = workshop.train("iin", "iin", keep=keep, experiences=2)
    assert _terms(full) - _terms(run) == gone
    steps = run.config.train.steps
    assert run.losses[:steps] == full.losses[:steps]  # the first experience has no teacher
    assert run.losses[steps]["loss"] == pytest.approx(full.losses[steps]["loss"] - full.losses[steps][gone.pop()])
    assert run.losses[-1] != full.losses[-1]


def test_routing_changes_judging_and_not_training(workshop: Any, full: Any) -> None:
    run = workshop.train("iin", "iin", learn={"routing": False}, experiences=2)
    assert run.losses == full.losses
    rows = full.parts.scenario.index("test", "alpha")
    images = next(full.agent.faces(rows)).image
    with torch.no_grad():
        with_routes, even = full.parts.learner.eval()(images), run.parts.learner.eval()(images)
    assert not torch.allclose(with_routes.attribution, even.attribution)
    assert not torch.equal(with_routes.z, even.z)
    assert torch.equal(with_routes.features["z_common"], even.features["z_common"])
    assert with_routes.known == ("alpha", "beta")
    assert torch.allclose(with_routes.attribution.sum(1), torch.ones(len(rows)))


def test_plain_pseudo_shows_self_blended_faces_as_forged(workshop: Any) -> None:
    plain = workshop.train("plain", experiences=1)
    shown = workshop.train("plain", learn={"pseudo": 1.0}, experiences=1)
    assert "pseudo" in shown.parts.learner.needs
    assert "pseudo" not in plain.parts.learner.needs
    assert plain.losses[0] != shown.losses[0]
