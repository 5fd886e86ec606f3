"""SUR-LID: its equations against loops and by hand, and what its heads and its memory do in a run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ffd_continual.scenarios.dataset import plain_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Output
from ffd_continual.strategies.sur_lid import SURLIDConfig
from ffd_continual.strategies.sur_lid_parts import (
    align,
    grid_shuffle,
    refill,
    spread_order,
    stable_and_unlike,
)


def test_a_shuffled_grid_by_hand_and_piece_by_piece() -> None:
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    found = grid_shuffle(picture, 2, torch.tensor([[3, 0, 1, 2]]))
    assert found[0, 0].tolist() == [[10, 11, 0, 1], [14, 15, 4, 5], [2, 3, 8, 9], [6, 7, 12, 13]]
    rng = np.random.default_rng(4)
    images, orders = torch.tensor(rng.normal(size=(3, 2, 7, 7))), np.stack([rng.permutation(9) for _ in range(3)])
    found = grid_shuffle(images, 3, torch.tensor(orders))
    for face in range(3):
        for piece in range(9):
            row, column = divmod(piece, 3)
            from_row, from_column = divmod(int(orders[face, piece]), 3)
            here = found[face, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            there = images[face, :, 2 * from_row : 2 * from_row + 2, 2 * from_column : 2 * from_column + 2]
            assert torch.equal(here, there)
    assert torch.equal(found[:, :, 6], images[:, :, 6])  # beyond the last whole piece
    assert torch.equal(found[:, :, :, 6], images[:, :, :, 6])
    assert torch.equal(grid_shuffle(images, 3, torch.arange(9).expand(3, 9)), images)


def test_any_first_part_of_the_order_is_spread() -> None:
    assert spread_order(8) == [0, 4, 2, 6, 1, 5, 3, 7]
    assert [sorted(spread_order(n)) for n in range(6)] == [list(range(n)) for n in range(6)]


def _choose(features: Any, stability: Any, n: int) -> set[int]:
    """Segments by a sort of pairs, then the most stable face of each and the least like it."""
    centre = [sum(column) / len(features) for column in zip(*features, strict=True)]
    by_distance = sorted((math.dist(face, centre), i) for i, face in enumerate(features))
    count = -(-n // 2)
    sizes = [len(features) // count + (1 if i < len(features) % count else 0) for i in range(count)]
    chosen, start = set(), 0
    for size in sizes:
        members = [i for _, i in by_distance[start : start + size]]
        start += size
        stable = max(members, key=lambda i: stability[i])
        chosen.add(stable)
        others = [i for i in members if i != stable]
        if others:
            norm = math.hypot(*features[stable])
            chosen.add(
                min(
                    others,
                    key=lambda i: (
                        sum(a * b for a, b in zip(features[i], features[stable], strict=True))
                        / (norm * math.hypot(*features[i]))
                    ),
                )
            )
    return chosen


@pytest.mark.parametrize("n", [2, 6, 10, 20])
def test_each_segment_gives_its_most_stable_face_and_the_least_like_it(n: int) -> None:
    rng = np.random.default_rng(n)
    features, stability = rng.normal(1.0, 1.0, (40, 3)), rng.uniform(0, 1, 40)
    found = stable_and_unlike(features, stability, n)
    assert len(found) == n
    assert set(found.tolist()) == _choose(features.tolist(), stability.tolist(), n)


def test_the_choice_by_hand() -> None:
    # Centroid (0, 0). Two segments: the four at distance 1, the four at distance 2. Stability picks 1 and 6; opposite
    # to them lie 3 and 4 (cosine -1).
    near, far = [(1, 0), (0, 1), (-1, 0), (0, -1)], [(2, 0), (0, 2), (-2, 0), (0, -2)]
    stability = np.array([0.1, 0.9, 0.2, 0.3, 0.1, 0.2, 0.8, 0.3])
    features = np.array([*near, *far], dtype=np.float32)
    assert stable_and_unlike(features, stability, 4).tolist() == [1, 3, 6, 4]
    assert stable_and_unlike(features, stability, 1).tolist() == [1]
    assert sorted(stable_and_unlike(features, stability, 99).tolist()) == list(range(8))
    assert len(stable_and_unlike(features[:0], stability[:0], 4)) == 0
    people = np.array(["a", "b", "c", "b", "d", "e", "b", "f"])  # 1, 3 and 6 are one person
    capped = stable_and_unlike(features, stability, 4, people, 1).tolist()
    assert capped[0] == 1
    assert 3 not in capped
    assert 6 not in capped
    assert len({people[i] for i in capped}) == 4


def test_refilling_by_hand_and_inside_the_group() -> None:
    stored = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 6.0], [100.0, 100.0]])
    groups = torch.tensor([1, 1, 1, 5])
    # The group's centroid is (2, 2); halfway between the first two lies (2, 0), and from there to the centroid (2, 1).
    first, second, half = torch.tensor([0, 3]), torch.tensor([1, 3]), torch.tensor([0.5, 0.5])
    assert refill(stored, groups, first, second, half, half).tolist() == [[2.0, 1.0], [100.0, 100.0]]
    rng = np.random.default_rng(6)
    points, kinds = rng.normal(size=(9, 4)), np.array([0, 1, 0, 1, 2, 0, 2, 2, 1])
    picks = [(0, 2), (5, 5), (4, 7), (8, 1)]
    alpha, beta = rng.random(4), rng.random(4)
    first, second = torch.tensor(picks).T
    found = refill(torch.tensor(points), torch.tensor(kinds), first, second, torch.tensor(alpha), torch.tensor(beta))
    for i, (a, b) in enumerate(picks):
        centre = np.mean([p for p, kind in zip(points, kinds, strict=True) if kind == kinds[a]], axis=0)
        expected = beta[i] * (alpha[i] * points[a] + (1 - alpha[i]) * points[b]) + (1 - beta[i]) * centre
        assert np.allclose(found[i].numpy(), expected)


def test_alignment_turns_and_keeps_the_length() -> None:
    # (3, 0) turned halfway to (0, 5): unit vectors (1, 0) and (0, 1), their mean at 45 degrees, length 3 stays.
    turned = align(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 5.0]), 0.5)
    assert turned.tolist() == pytest.approx([3 / math.sqrt(2), 3 / math.sqrt(2)])
    rng = np.random.default_rng(7)
    new, old = torch.tensor(rng.normal(size=(1, 6))), torch.tensor(rng.normal(size=(1, 6)))
    angles = []
    for share in (0.0, 0.001, 0.3, 0.9):
        found = align(new, old, share)
        assert float(found.norm()) == pytest.approx(float(new.norm()))
        angles.append(math.acos(float((found * old).sum() / found.norm() / old.norm())))
    assert torch.allclose(align(new, old, 0.0), new)
    assert angles == sorted(angles, reverse=True)


def test_the_weights_are_the_paper_s() -> None:
    config = SURLIDConfig()
    assert (config.isolation_weight, config.distill_weight, config.detect_weight, config.align) == (1.0, 1.0, 0.1, 1e-3)


def test_a_run_grows_a_head_a_task_and_decides_by_their_mean(workshop: Any) -> None:
    seen: list[list[torch.Tensor]] = []

    def look(experience: int, parts: Any) -> None:
        seen.append([head.weight.detach().clone() for head in parts.keeper.heads])

    run = workshop.train("plain", "sur_lid", keep={"exemplars": 16}, after=look, steps=3, lr=1e-2)
    keeper, steps = run.parts.keeper, run.config.train.steps
    assert [len(heads) for heads in seen] == [1, 2, 3]
    assert not torch.equal(seen[0][0], seen[1][0])  # an old head goes on learning from its stored faces
    assert run.losses[0].keys() == {"decision", "isolation", "detect", "loss"}
    assert run.losses[steps].keys() == {"decision", "isolation", "keep_feature", "detect", "loss"}
    assert "keep_feature" not in run.losses[0]
    optimized = {id(p) for group in run.agent.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in keeper.heads.parameters()} <= optimized
    width = seen[0][0].shape[1]
    features = torch.randn(5, width)
    expected = sum(features @ head.weight[0] + head.bias for head in keeper.heads) / 3
    assert torch.allclose(keeper.decide(Output(torch.zeros(5), {"common": features})), expected, atol=1e-5)
    pictures = len(keeper.remembered()) * int(run.parts.sources.table.pictures[0].nbytes)
    assert keeper.stored_bytes() == pictures + 3 * 4 * (width + 1)


def test_the_terms_of_a_step_follow_a_loop(workshop: Any) -> None:
    """Isolation without re-filling, distillation of stored faces, and each face under its own task's head."""
    keep = {"exemplars": 12, "filled": 0}
    run = workshop.train("plain", "sur_lid", keep=keep, experiences=1, steps=3, lr=1e-2)
    keeper, agent = run.parts.keeper, run.agent
    old, batch = run.step_of_the_second()
    features = agent.out.features["common"].detach().double().numpy()
    with torch.no_grad():
        taught = old(batch.image).features["common"].double().numpy()
    unit = [f / np.linalg.norm(f) for f in features]
    groups = [(int(e), int(t)) for e, t in zip(batch.experience, batch.target, strict=True)]
    assert {experience for experience, _ in groups} == {0, 1}
    contrast, squares, detect = [], [], []
    for i, group in enumerate(groups):
        bottom = sum(math.exp(unit[i] @ unit[j] / 0.1) for j in range(8) if j != i)
        same = [j for j in range(8) if j != i and groups[j] == group]
        if same:
            contrast.append(-sum(unit[i] @ unit[j] / 0.1 - math.log(bottom) for j in same) / len(same))
        if group[0] == 0:
            squares.append(((features[i] - taught[i]) ** 2).mean())
        head = keeper.heads[group[0]]
        z = float(features[i] @ head.weight[0].detach().double().numpy() + float(head.bias.detach()))
        detect.append(math.log(1 + math.exp(-z if group[1] else z)))
    assert float(agent.losses["isolation"]) == pytest.approx(np.mean(contrast), rel=1e-4)
    assert float(agent.losses["keep_feature"]) == pytest.approx(np.mean(squares), rel=1e-3)
    assert float(agent.losses["detect"]) == pytest.approx(0.1 * np.mean(detect), rel=1e-4)


def test_stored_features_are_mixed_within_their_groups(workshop: Any) -> None:
    run = workshop.train("plain", "sur_lid", keep={"exemplars": 12, "filled": 5}, experiences=2)
    keeper, agent = run.parts.keeper, run.agent
    agent.position = (2, 0)
    agent.make_optimizer()
    keeper.before_training_exp(agent)
    assert len(keeper.stored) == 12
    assert sorted(keeper.groups.unique().tolist()) == [0, 1, 2, 3]  # 2 * task + label
    filled, groups = keeper._filled(agent)
    assert groups.tolist() == [group for group in range(4) for _ in range(5)]
    for group in range(4):
        members = keeper.stored[keeper.groups == group]
        inside = filled[groups == group]
        low, high = members.amin(0) - 1e-5, members.amax(0) + 1e-5
        assert bool(((inside >= low) & (inside <= high)).all())
    assert torch.equal(keeper._filled(agent)[0], filled)  # a function of seed and step
    agent.position = (2, 1)
    assert not torch.equal(keeper._filled(agent)[0], filled)


def test_the_memory_holds_what_the_rule_chooses(workshop: Any) -> None:
    run = workshop.train("plain", "sur_lid", keep={"exemplars": 8}, experiences=1)
    keeper, learner = run.parts.keeper, run.parts.learner.eval()
    rows = keeper.context.train_rows[0]
    forged = [int(row) for row in rows if run.parts.sources.forgery[row] > 0]
    with torch.no_grad():
        images = plain_batch(run.parts.sources, forged).image
        features = learner(images).features["common"]
        orders = torch.tensor(np.stack([keeper._order(row, 4) for row in forged]))
        shuffled = learner(grid_shuffle(images, 2, orders)).features["common"]
    assert not bool((orders == torch.arange(4)).all(1).any())
    stability = torch.nn.functional.cosine_similarity(features, shuffled).tolist()
    table = keeper.memory.table
    kept = {int(row) for row, label in zip(table.row, table.label, strict=True) if label == 1}
    assert kept == {forged[i] for i in _choose(features.tolist(), stability, 4)}


def test_without_its_parts_it_is_replay(workshop: Any) -> None:
    off = {"policy": "reservoir", "isolation_weight": 0.0, "distill_weight": 0.0, "detect_weight": 0.0}
    replay = workshop.train("plain", "replay", experiences=2)
    silent = workshop.train("plain", "sur_lid", keep=off, experiences=2)
    assert silent.losses == replay.losses
    assert all(torch.equal(replay.weights[name], value) for name, value in silent.weights.items())
    out = Output(torch.randn(3), {"common": torch.randn(3, 4)})
    assert torch.equal(silent.parts.keeper.decide(out), out.z)
    assert silent.parts.keeper.stored_bytes() == replay.parts.keeper.stored_bytes()


def test_settings_that_mean_nothing_are_refused(workshop: Any) -> None:
    for keep, named in (({"cells": 1}, "cells"), ({"align": 1.0}, "cells"), ({"align": -0.1}, "align")):
        with pytest.raises(FFDError, match=rf"strategy\.{named}"):
            workshop.parts("plain", "sur_lid", keep=keep)
