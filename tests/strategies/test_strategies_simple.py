"""frozen, nearest_mean, gdumb and er_ace: formulas by hand, what may move and what may be seen, and their limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.er_ace import class_log_probabilities, masked_cross_entropy
from ffd_continual.strategies.learner import Output
from ffd_continual.strategies.nearest_mean import class_means, mean_logit
from ffd_continual.strategies.training.template import FaceStrategy

STILL = {"pooling": "statistics", "features": 8}


def _same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


class _Rows(SupervisedPlugin):  # type: ignore[misc]
    """The rows of every step's batch."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, ...]] = []

    def before_training_iteration(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        self.rows.append(tuple(strategy.mbatch.row.tolist()))


# frozen ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1])
def test_a_frozen_trunk_moves_by_no_bit(workshop: Any, after: int) -> None:
    kept: list[dict[str, torch.Tensor]] = []

    def note(_: int, parts: Any) -> None:
        kept.append({k: v.clone() for k, v in parts.learner.state_dict().items()})

    _, fresh = workshop.parts("plain", "frozen")
    start = {k: v.clone() for k, v in fresh.learner.state_dict().items()}
    workshop.train("plain", "frozen", keep={"after": after}, after=note, lr=1e-2)
    naive = workshop.train("plain", "naive", experiences=1, lr=1e-2)
    assert _same(kept[0], naive.weights) == (after == 1)
    still = start if after == 0 else kept[0]
    for name, value in kept[2].items():
        assert torch.equal(value, still[name]) == name.startswith("trunk."), name
    assert any(not torch.equal(kept[0][n], start[n]) for n in start if n.startswith("trunk.high")) == (after == 1)


def test_frozen_is_naive_where_the_trunk_is_frozen_already(workshop: Any) -> None:
    naive = workshop.train("plain", "naive", learn=STILL, experiences=2)
    frozen = workshop.train("plain", "frozen", learn=STILL, experiences=2)
    assert _same(naive.weights, frozen.weights)


def test_frozen_names_a_learner_that_it_cannot_serve(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FFDError, match="learner wavelet calls no part of it `trunk`"):
        workshop.train("wavelet", "frozen", experiences=1)
    config, parts = workshop.parts("plain", "frozen")
    parts.learner.head.requires_grad_(False)
    agent = parts.agent(config.train)
    with pytest.raises(FFDError, match="nothing of learner plain is left"):
        agent.train(parts.benchmark.train_stream[0], eval_streams=[])


# nearest_mean ---------------------------------------------------------------------------------------------------------


def test_nearest_mean_by_hand() -> None:
    means, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    z = mean_logit(torch.tensor([[3.0, 4.0], [2.0, 0.0]]), means, labels)
    near, far = math.sqrt(0.6**2 + 0.2**2), math.sqrt(0.4**2 + 0.8**2)
    assert z.tolist() == pytest.approx([far - near, 0.0 - math.sqrt(2)])


def test_means_and_decision_against_loops() -> None:
    rng = np.random.default_rng(2)
    features, classes = rng.normal(size=(12, 3)), np.array([0, 1, 2, 3] * 3)
    unit = [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in features]
    means = []
    for c in range(4):
        mean = [sum(unit[i][d] for i in range(12) if classes[i] == c) / 3 for d in range(3)]
        means.append([v / math.sqrt(sum(w * w for w in mean)) for v in mean])
    made = class_means(torch.tensor(features), torch.tensor(classes))
    assert made.flatten().tolist() == pytest.approx([v for mean in means for v in mean], abs=1e-6)
    z = mean_logit(torch.tensor(features), made, torch.tensor([0, 1, 0, 1]))
    for i in range(12):
        distance = [math.dist(unit[i], means[c]) for c in range(4)]
        assert float(z[i]) == pytest.approx(min(distance[0], distance[2]) - min(distance[1], distance[3]), abs=1e-5)
    again = mean_logit(torch.tensor(features) * 7.0, made, torch.tensor([0, 1, 0, 1]))
    assert torch.allclose(again, z, atol=1e-6)  # a feature's length says nothing


def test_nearest_mean_keeps_means_of_its_exemplars(workshop: Any) -> None:
    run = workshop.train("plain", "nearest_mean", experiences=2, lr=1e-2)
    keeper, learner = run.parts.keeper, run.parts.learner.eval()
    assert keeper.labels.tolist() == [0, 1, 0, 1]
    table = keeper.memory.table
    with torch.no_grad():
        feature = torch.cat([learner(batch.image).features["common"] for batch in run.agent.faces(table.row)])
    for place, (forgery, label) in enumerate([("alpha", 0), ("alpha", 1), ("beta", 0), ("beta", 1)]):
        part = torch.nn.functional.normalize(feature[(table.forgery == forgery) & (table.label == label)], dim=1)
        expected = part.mean(0) / part.mean(0).norm()
        assert torch.allclose(keeper.means[place], expected, atol=1e-5)
    face = run.parts.sources.table.pictures[0].nbytes
    assert keeper.stored_bytes() == 8 * face + 4 * keeper.means.numel()
    none = workshop.train("plain", "nearest_mean", keep={"exemplars": 0}, experiences=2, lr=1e-2)
    naive = workshop.train("plain", "naive", experiences=2, lr=1e-2)
    assert _same(none.weights, naive.weights)
    out = Output(torch.tensor([0.3]), {"common": torch.ones(1, 4)})
    assert none.parts.keeper.decide(out) is out.z


def test_nearest_mean_replays_what_herding_chose(workshop: Any) -> None:
    herded = workshop.train("plain", "replay", keep={"policy": "herding"}, lr=1e-2)
    mine = workshop.train("plain", "nearest_mean", lr=1e-2)
    assert _same(herded.weights, mine.weights)
    assert workshop.train("plain", "nearest_mean", learn=STILL, kept_views=2).parts.keeper.means.shape == (6, 8)


# gdumb ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learn", [{}, STILL], ids=["fine-tuned", "statistics"])
def test_gdumb_trains_on_its_memory_alone_and_from_scratch(workshop: Any, learn: dict[str, Any]) -> None:
    memories: list[set[int]] = []

    def note(_: int, parts: Any) -> None:
        memories.append(set(parts.keeper.remembered().tolist()))

    diary = _Rows()
    run = workshop.train("plain", "gdumb", learn=learn, experiences=2, plugins=[diary], after=note, steps=3, lr=1e-2)
    for step, rows in enumerate(diary.rows):
        assert set(rows) <= memories[step // 3]
        assert len(rows) == 8
    sources = run.parts.sources
    for experience, memory in enumerate(memories):
        held = sorted(memory)
        assert sources.experience[held].tolist().count(experience) == (8 if experience == 0 else 4)
        assert (sources.forgery[held] > 0).sum() == 4
        assert set(sources.experience[held]) == set(range(experience + 1))

    # A learner that never saw the first experience, given the same memory, ends with the same bits.
    config, parts = workshop.parts("plain", "gdumb", learn=learn, steps=3, lr=1e-2)
    tensors, values = run.parts.keeper.state_dict()
    memory_only = {name: value for name, value in tensors.items() if not name.startswith("initial.")}
    parts.keeper.load_state_dict((memory_only, {**values, "trained": []}))
    if learn:  # the scale of the statistics is met once, in the first experience
        parts.learner.standard.load_state_dict(run.parts.learner.standard.state_dict())
    agent = parts.agent(config.train)
    agent.position = (1, 0)
    agent.train(parts.benchmark.train_stream[1], eval_streams=[])
    assert _same({k: v.clone() for k, v in parts.learner.state_dict().items()}, run.weights)


def test_gdumb_keeps_only_what_training_changes(workshop: Any) -> None:
    run = workshop.train("iin", "gdumb", experiences=3)
    kept = run.parts.keeper.initial
    assert not any(name.startswith(("trunk.", "intra.0.", "intra.1.")) for name in kept)
    assert any(name.startswith("slow.") for name in kept)
    assert any(name.startswith("intra.2.") for name in kept)
    nbytes = sum(value.element_size() * value.numel() for value in kept.values())
    assert run.parts.keeper.stored_bytes() == nbytes + 8 * run.parts.sources.table.pictures[0].nbytes
    with pytest.raises(FFDError, match="at least one real and one forged"):
        workshop.parts("plain", "gdumb", keep={"exemplars": 1})


# er_ace ---------------------------------------------------------------------------------------------------------------


def test_class_probabilities_are_the_softmax_that_they_came_from() -> None:
    logits = torch.tensor([[0.5, -1.0, 2.0], [3.0, 0.0, 0.1]])
    z = torch.logsumexp(logits[:, 1:], dim=1) - logits[:, 0]
    found = class_log_probabilities(z, torch.softmax(logits[:, 1:], dim=1))
    assert torch.allclose(found, logits.log_softmax(1), atol=1e-6)


def test_masked_cross_entropy_by_hand_and_without_pull_on_absent_types() -> None:
    probabilities = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])
    log_p = probabilities.log().requires_grad_()
    loss = masked_cross_entropy(log_p, torch.tensor([1, 0]), torch.tensor([True, True, False]))
    assert float(loss) == pytest.approx(-(math.log(0.3 / 0.5) + math.log(0.6 / 0.7)) / 2, rel=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert log_p.grad is not None
    assert log_p.grad[:, 2].tolist() == [0.0, 0.0]
    full = masked_cross_entropy(log_p, torch.tensor([1, 0]), torch.ones(3, dtype=torch.bool))
    assert float(full) == pytest.approx(-(math.log(0.3) + math.log(0.6)) / 2, rel=1e-6)


def test_er_ace_in_a_run(workshop: Any) -> None:
    """Current faces of a later type leave the old types' rows alone; stored faces do not."""
    many = {"classes": "many"}
    rows: list[dict[str, Any]] = []

    class Rows(SupervisedPlugin):  # type: ignore[misc]
        def _old(self, strategy: FaceStrategy) -> float:
            learner: Any = strategy.learner
            gradient = learner.head.types[0].weight.grad
            return 0.0 if gradient is None else float(gradient.abs().max())

        def after_backward(self, strategy: FaceStrategy, **kwargs: Any) -> None:
            rows.append({"position": strategy.position, "current": self._old(strategy)})

        def before_update(self, strategy: FaceStrategy, **kwargs: Any) -> None:
            rows[-1]["both"] = self._old(strategy)

    run = workshop.train("ce", "er_ace", learn=many, experiences=3, batch=12, plugins=[Rows()])
    for row in rows:
        if row["position"][0] == 0:
            assert row["current"] == row["both"] > 0
        else:
            assert row["current"] < 1e-6 < row["both"]
    assert {"decision", "stored"} <= run.losses[-1].keys()
    naive = workshop.train("ce", "naive", learn=many, experiences=1, batch=12)
    none = workshop.train("ce", "er_ace", learn=many, keep={"exemplars": 0}, experiences=1, batch=12)
    assert [s["loss"] for s in none.losses] == pytest.approx([s["loss"] for s in naive.losses], rel=1e-5)


def test_er_ace_says_where_it_would_be_replay(workshop: Any) -> None:
    for learner in ("plain", "iin"):
        with pytest.raises(FFDError, match=f"learner {learner} as configured .* strategy replay"):
            workshop.train(learner, "er_ace", experiences=1)
