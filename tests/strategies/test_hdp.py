"""HDP: its perturbations against a loop and by hand, its stand-ins, its limits, and a resume inside an experience."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ffd_continual.scenarios.dataset import train_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.hdp import stand_ins, universal_perturbation, universal_step
from ffd_continual.strategies.training.plan import StepPlan


def _linear(weight: torch.Tensor, bias: float) -> Any:
    return lambda images: (images * weight).sum((1, 2, 3)) + bias


def test_a_step_by_hand() -> None:
    """z = 2 x1 - x2, so d/dx log p(forged) has the signs (+, -); a pixel at its end of 0..1 has no gradient."""
    weight = torch.tensor([2.0, -1.0]).view(2, 1, 1)
    images = torch.tensor([[0.5, 0.5]]).view(1, 2, 1, 1)
    delta = universal_step(torch.zeros(2, 1, 1), images, _linear(weight, 0.0), bound=0.1, size=0.04)
    assert delta.flatten().tolist() == pytest.approx([0.04, -0.04])
    delta = universal_step(torch.full((2, 1, 1), 0.09), images, _linear(weight, 0.0), bound=0.1, size=0.04)
    assert delta.flatten().tolist() == pytest.approx([0.1, 0.05])  # the first is held at the bound


def test_a_step_follows_the_sign_of_the_summed_slopes() -> None:
    rng = np.random.default_rng(3)
    images, delta = rng.uniform(0.3, 0.7, (4, 3, 2, 2)), rng.uniform(-0.05, 0.05, (3, 2, 2))
    first, second = rng.normal(size=(3, 2, 2)), rng.normal(size=(3, 2, 2))

    def judge(x: torch.Tensor) -> torch.Tensor:
        a, b = (x * torch.tensor(first)).sum((1, 2, 3)), (x * torch.tensor(second)).sum((1, 2, 3))
        return a * b

    slope = np.zeros((3, 2, 2))
    for image in images:  # d/dx of log(1 / (1 + e^-z)) is (1 - p) dz/dx
        moved = image + delta
        a, b = float((moved * first).sum()), float((moved * second).sum())
        slope += (1.0 - 1.0 / (1.0 + np.exp(-a * b))) * (a * second + b * first)
    expected = np.clip(delta + 0.02 * np.sign(slope), -0.06, 0.06)
    found = universal_step(torch.tensor(delta), torch.tensor(images), judge, 0.06, 0.02)
    assert np.allclose(found.numpy(), expected)


def test_passes_end_when_enough_faces_are_called_forged() -> None:
    """z = sum x - 2.6 on four pixels of 0.5: each pass lifts z by 4 * 0.02, from -0.6 to 0 and over after eight."""
    images, judge = torch.full((3, 1, 2, 2), 0.5), _linear(torch.ones(1, 2, 2), -2.6)
    passes: list[int] = []

    def pictures() -> Any:
        passes.append(1)
        yield images

    delta = universal_perturbation(judge, pictures, torch.zeros(1, 2, 2), bound=0.2, iterations=10, fooled=0.8)
    assert torch.allclose(delta, torch.full((1, 2, 2), 0.16))
    assert len(passes) == 2 * 8  # a pass that moves, and one that counts
    short = universal_perturbation(judge, pictures, torch.zeros(1, 2, 2), bound=0.1, iterations=5, fooled=0.8)
    assert torch.allclose(short, torch.full((1, 2, 2), 0.1))  # never fooled: it ends at the bound


def test_stand_ins_are_real_faces_with_a_past_perturbation(workshop: Any) -> None:
    parts = workshop.parts("plain", "naive")[1]
    batch = train_batch(parts.sources, next(iter(StepPlan(parts.keeper, parts.sources, 2, 8, 0, 1))))
    where = torch.tensor([True, False, True, False, False, False, False, False])
    deltas = torch.stack([torch.full((3, 32, 32), 0.5), torch.full((3, 32, 32), -0.25)])
    whose, forgery = torch.tensor([0, 0, 1, 0, 1, 1, 1, 1]), torch.tensor([4, 7])
    made = stand_ins(batch, where, deltas, whose, forgery)
    assert torch.equal(made.image[0], (batch.image[0] + 0.5).clamp(max=1.0))
    assert torch.equal(made.image[2], (batch.image[2] - 0.25).clamp(min=0.0))
    assert torch.equal(made.image[~where], batch.image[~where])
    assert made.target.tolist() == [1, 0, 1, 0, 1, 1, 1, 1]
    assert made.forgery[where].tolist() == [4, 7]
    assert made.experience.tolist() == [0, 2, 1, 2, 2, 2, 2, 2]
    assert not bool(made.mask_known[where].any())
    assert torch.equal(made.row, batch.row)


def test_a_run_finds_one_bounded_perturbation_an_experience_that_fools(workshop: Any) -> None:
    kept: list[list[torch.Tensor]] = []
    run = workshop.train(
        "plain", "hdp", after=lambda _, parts: kept.append([d.clone() for d in parts.keeper.deltas]), steps=3, lr=3e-3
    )
    assert [len(deltas) for deltas in kept] == [1, 2, 3]
    assert torch.equal(kept[0][0], kept[2][0])  # never changed again
    assert all(0 < float(delta.abs().max()) <= 0.075 + 1e-7 for delta in kept[2])
    assert run.parts.keeper.stored_bytes() == 3 * 3 * 32 * 32 * 4
    assert len(run.parts.keeper.remembered()) == 0
    rows = run.parts.keeper._real(2)
    learner = run.parts.learner.eval()
    with torch.no_grad():
        images = torch.cat([batch.image for batch in run.agent.faces(rows)])
        plain, moved = learner(images).z, learner((images + kept[2][2]).clamp(0, 1)).z
    assert float(moved.mean()) > float(plain.mean())
    steps = run.config.train.steps
    assert all("keep_logit" not in step for step in run.losses[:steps])
    assert all({"keep_logit", "keep_real"} <= step.keys() for step in run.losses[steps:])


def test_without_stand_ins_and_distillation_it_is_naive(workshop: Any) -> None:
    naive = workshop.train("plain", "naive", experiences=2)
    silent = workshop.train("plain", "hdp", keep={"share": 0.0, "real_weight": 0.0}, experiences=2)
    assert silent.losses == naive.losses
    assert all(torch.equal(naive.weights[name], value) for name, value in silent.weights.items())


def test_a_batch_ends_with_perturbed_real_faces_of_the_experience(workshop: Any) -> None:
    run = workshop.train("plain", "hdp", experiences=2)
    keeper, agent = run.parts.keeper, run.agent
    plan = StepPlan(keeper, run.parts.sources, 2, 8, 0, 1)
    given = train_batch(run.parts.sources, next(iter(plan)))
    agent.position, agent.mbatch = (2, 0), given
    keeper.before_training_iteration(agent)
    made = agent.mbatch
    assert given.target.tolist() == [0, 0, 0, 1, 1, 0, 0, 0]  # a third of eight are drawn, all of them real
    assert set(given.experience.tolist()) == {2}
    assert made.target.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert set(made.experience[5:].tolist()) <= {0, 1}
    for face in range(5, 8):
        delta = keeper.deltas[int(made.experience[face])]
        assert torch.equal(made.image[face], (given.image[face] + delta).clamp(0, 1))
        assert int(made.forgery[face]) == int(made.experience[face]) + 1  # alpha, beta, gamma in the manifest's order


@pytest.mark.parametrize(
    ("learner", "learn", "train", "said"),
    [
        ("iin", {}, {}, "no gradient reaches the pixels"),
        ("plain", {"pooling": "statistics"}, {}, "no gradient reaches the pixels"),
        ("plain", {"pooling": "statistics"}, {"kept_views": 1}, "train.kept_views"),
    ],
)
def test_learners_without_gradients_to_pixels_are_refused(
    workshop: Any, learner: str, learn: dict[str, Any], train: dict[str, Any], said: str
) -> None:
    with pytest.raises(FFDError, match=said):
        workshop.train(learner, "hdp", learn=learn, experiences=1, **train)


def test_settings_that_mean_nothing_are_refused(workshop: Any) -> None:
    with pytest.raises(FFDError, match="iterations"):
        workshop.parts("plain", "hdp", keep={"iterations": 0})
