"""Guide-Space as a learner: limits, switches, neighbours, streams, checkpoints."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from ffd_continual.config import apply_sets, config_from, fill, read_yaml
from ffd_continual.runs.assemble import assemble
from ffd_continual.runs.checkpoint import load_optimizer, optimizer_tensors
from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.dataset import Request, train_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Learner, place
from ffd_continual.strategies.learners.guide_space import GuideSpace, GuideSpaceConfig
from ffd_continual.strategies.learners.trunk import TrunkConfig
from ffd_continual.strategies.strategy import Strategy
from ffd_continual.strategies.training.template import FaceStrategy
from ffd_continual.sweeping.grid import Grid

ROOT = Path(__file__).parents[2]
TRUNK = TrunkConfig(backbone="test_efficientnet", weights="none", frozen_stages=2)
SILENT = {"guide_weight": 0.0, "push_weight": 0.0, "pull_weight": 0.0, "adjust": False}


def _learner(**settings: Any) -> GuideSpace:
    torch.manual_seed(7)
    given = {
        "features": 8,
        "temperature": 0.1,
        "queue": 40,
        "neighbours": 8,
        "adjust_from": 0.0,
        "samples": 3,
        "cluster_faces": 8,
    }
    learner = GuideSpace(GuideSpaceConfig(trunk=TRUNK, **{**given, **settings}))
    learner.begin("alpha")
    return learner


@pytest.fixture(scope="module")
def batches(workshop: Any) -> list[Batch]:
    """Four batches of real faces and of the first two types."""
    parts = workshop.parts("plain")[1]
    made = []
    for step in range(4):
        rows: list[int] = []
        for name in ("alpha", "beta"):
            chosen = parts.scenario.index("train", name)
            label = parts.sources.table.rows["label"].to_numpy()[chosen]
            for value in (0, 1):
                rows += [int(r) for r in chosen[label == value][3 * step : 3 * step + 3]]
        made.append(train_batch(parts.sources, Request(tuple(rows), 0, step)))
    return made


def _warm(learner: GuideSpace, batches: list[Batch]) -> None:
    with torch.no_grad():
        learner.meet(batches)
    for batch in batches[:-1]:
        learner.step(batch)


def test_with_zero_weights_it_is_binary_cross_entropy(batches: list[Batch]) -> None:
    silent, plain = _learner(**SILENT), _learner(**SILENT)
    _warm(silent, batches)
    for batch in batches[:-1]:
        plain(batch.image)  # the same normalisation statistics
    _, losses = silent.step(batches[-1])
    assert set(losses) == {"decision"}
    losses["decision"].backward()  # type: ignore[no-untyped-call]
    out = plain(batches[-1].image)
    torch.nn.functional.binary_cross_entropy_with_logits(out.z, batches[-1].target.float()).backward()  # type: ignore[no-untyped-call]
    theirs = dict(plain.named_parameters())
    moved = 0
    for name, mine in silent.named_parameters():
        other = theirs[name].grad
        assert (mine.grad is None) == (other is None), name
        if mine.grad is not None and other is not None:
            assert torch.allclose(mine.grad, other, atol=1e-7), name
            moved += bool(mine.grad.abs().sum() > 0)
    assert moved > 5


PARTS = {
    "guide": {"guide_weight": 0.0},
    "push": {"push_weight": 0.0},
    "pull": {"pull_weight": 0.0},
}


@pytest.mark.parametrize("part", PARTS)
def test_a_weight_of_zero_removes_its_term_and_no_other(batches: list[Batch], part: str) -> None:
    full, less = _learner(), _learner(**PARTS[part])
    _warm(full, batches)
    _warm(less, batches)
    torch.manual_seed(1)
    all_terms = full.step(batches[-1])[1]
    torch.manual_seed(1)
    terms = less.step(batches[-1])[1]
    assert set(all_terms) == {"decision", "guide", "push", "pull"}
    assert set(terms) == set(all_terms) - {part}
    assert all(float(v.detach()) > 0 for v in all_terms.values())
    doubled = _learner(**{f"{part}_weight": 2 * getattr(full.config, f"{part}_weight")})
    _warm(doubled, batches)
    torch.manual_seed(1)
    assert float(doubled.step(batches[-1])[1][part].detach()) == pytest.approx(2 * float(all_terms[part].detach()))


def test_every_parameter_of_a_part_changes_its_term(batches: list[Batch]) -> None:
    def terms(**settings: Any) -> dict[str, float]:
        learner = _learner(**settings)
        _warm(learner, batches)
        torch.manual_seed(1)
        return {k: float(v.detach()) for k, v in learner.step(batches[-1])[1].items()}

    full = terms()
    for settings, touched in (
        ({"theta": 90.0}, {"guide", "push"}),
        ({"temperature": 0.5}, {"guide", "push", "pull"}),
        ({"mode": "orthonormal"}, {"guide", "push"}),
        ({"adjust": False}, {"decision", "guide"}),
        ({"adjust_from": 0.5}, {"decision", "guide"}),
        ({"neighbours": 30}, {"decision", "guide"}),
        ({"gamma": 0.01}, {"decision", "guide"}),
        ({"clusters": 1}, {"pull"}),
        ({"samples": 1}, {"push", "pull"}),
        ({"queue": 12}, {"guide"}),
    ):
        made = terms(**settings)
        for name in touched:
            assert made.get(name, 0.0) != pytest.approx(full[name], rel=1e-5), (settings, name)


def test_the_weights_are_those_of_brute_neighbours(batches: list[Batch]) -> None:
    """K = round(8 * stored / 40), nearest by cosine, a face's own earlier features left out."""
    learner = _learner()
    _warm(learner, batches)
    again = batches[1]  # faces that are stored already
    feature = learner(again.image).features["common"].detach()
    stored, rows = learner._recent()
    made = learner._weights(feature, again, stored, rows)
    count = round(8 * len(stored) / 40)
    assert len(stored) == 36
    wanted = []
    for i in range(len(feature)):
        near = []
        for j in range(len(stored)):
            if int(rows[j]) != int(again.row[i]):
                cosine = sum(float(a) * float(b) for a, b in zip(feature[i], stored[j], strict=True))
                near.append((cosine, int(learner.faces.domain[rows[j]])))
        good = bad = 0.0
        mine = int(again.forgery[i])
        for cosine, kind in sorted(near, reverse=True)[:count]:
            if kind == mine:
                good += (1 + cosine) / 2
            else:
                bad += (1 + cosine) / 2 * (0.5 if kind > 0 and mine > 0 else 1.0)
        wanted.append(good / (good + bad))
    share = torch.softmax(-torch.tensor(wanted), 0) * len(wanted)
    assert torch.allclose(made, share, atol=1e-4)
    assert float(made.max() - made.min()) > 0.05
    learner.progress = 0.0
    late = _learner(adjust_from=0.5)
    _warm(late, batches)
    assert torch.equal(late._weights(feature, again, stored, rows), torch.ones(len(feature)))
    late.progress = 0.5
    assert torch.allclose(late._weights(feature, again, stored, rows), made)


def test_the_stored_features_are_the_newest_and_no_more_than_faces_met(batches: list[Batch]) -> None:
    learner = _learner(queue=30)
    _warm(learner, batches)
    _, rows = learner._recent()
    offered = torch.cat([batch.row for batch in batches[:-1]])
    assert sorted(rows.tolist()) == sorted(offered[-30:].tolist())
    assert int(learner.queue.offered) == len(offered) == 36
    few = _learner(**SILENT, queue=200)
    for _ in range(3):
        few.step(batches[0])  # twelve faces, three times
    assert sorted(few._recent()[1].tolist()) == sorted(batches[0].row.tolist())


def test_attribution_names_the_types_whose_embedding_is_near(batches: list[Batch]) -> None:
    learner = _learner()
    assert learner(batches[0].image).attribution is None
    _warm(learner, batches)
    learner.begin("beta")
    learner.eval()
    with torch.no_grad():
        out = learner(batches[0].image)
    assert out.known == ("alpha", "beta")
    assert out.attribution is not None
    assert out.novelty is not None
    guides = learner.guides.embeddings[learner.guides.row]
    for i, feature in enumerate(out.features["common"]):
        odds = [2.718281828 ** (float(feature @ guide) / 0.1) for guide in guides]
        assert out.attribution[i].tolist() == pytest.approx([o / sum(odds) for o in odds], rel=1e-3)
        nearest = max(float(feature @ g) for g in (learner.guides.embeddings[0], *guides))
        assert float(out.novelty[i]) == pytest.approx(1 - nearest, abs=1e-5)


def test_types_arrive_without_moving_the_space_and_matches_close(workshop: Any) -> None:
    seen: list[tuple[torch.Tensor, list[int], list[bool]]] = []

    def look(experience: int, parts: Any) -> None:
        guides = parts.learner.guides
        seen.append((guides.embeddings.clone(), guides.row.tolist(), guides.closed.tolist()))

    for strategy in ("naive", "replay"):
        seen.clear()
        run = workshop.train("guide_space", strategy, after=look, steps=3)
        for k, (embeddings, rows, closed) in enumerate(seen):
            assert torch.equal(embeddings, seen[0][0])
            assert len(rows) == k + 1
            assert rows[:k] == seen[k - 1][1][:k] if k else True
            assert all(closed)
        assert sorted(seen[-1][1]) == sorted(set(seen[-1][1]))
        assert run.parts.learner.guides.names(run.parts.learner.growth) == ("alpha", "beta", "gamma")


def test_joint_training_meets_all_types_at_once_and_knows_their_experiences(workshop: Any) -> None:
    run = workshop.train("guide_space", "joint", experiences=2)
    guides = run.parts.learner.guides
    assert guides.types.tolist() == [1, 2, 3]
    assert guides.arrived.tolist() == [0, 1, 2]
    assert guides.closed.tolist() == [True, True, False]
    assert guides.names(run.parts.learner.growth) == ("alpha", "beta", "forgery 3")


def test_two_types_of_one_experience_have_an_embedding_each(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    trunk = {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 2}
    scenario = {**tiny_config["scenario"], "order": ["alpha+beta", "gamma"], "unseen": [], "size": 32}
    learner = {"name": "guide_space", "trunk": trunk, "features": 8, "queue": 64}
    train = {**tiny_config["train"], "steps": 2}
    given = {**tiny_config, "scenario": scenario, "learner": learner, "strategy": "naive", "train": train}
    config = config_from(given)
    parts = assemble(config, tmp_path, lambda rows: None)
    agent = parts.agent(config.train)
    for experience in range(2):
        agent.position = (experience, 0)
        agent.train(parts.benchmark.train_stream[experience], eval_streams=[])
    out = parts.learner.eval()(torch.rand(3, 3, 32, 32))
    assert out.known == ("alpha", "beta", "gamma")
    assert isinstance(parts.learner, GuideSpace)
    assert len(set(parts.learner.guides.row.tolist())) == 3


def test_clusters_know_nothing_of_the_future(workshop: Any) -> None:
    def look(experience: int, parts: Any) -> None:
        known = (parts.learner.faces.cluster >= 0).nonzero().squeeze(1)
        met = torch.cat([torch.from_numpy(parts.scenario.index("train", n)) for n in names[: experience + 1]])
        assert sorted(known.tolist()) == sorted(met.tolist())
        assert torch.equal(parts.learner.faces.domain >= 0, parts.learner.faces.cluster >= 0)

    names = ("alpha", "beta", "gamma")
    run = workshop.train("guide_space", "naive", after=look)
    assert len(run.losses) == 6


def test_a_full_space_stops_the_run_with_the_way_out(workshop: Any) -> None:
    with pytest.raises(FFDError, match="learner.reserve"):
        workshop.train("guide_space", learn={"reserve": 2})


def _names(agent: FaceStrategy) -> dict[int, str]:
    return {id(p): name for name, p in agent.learner.named_parameters()}


def _written(learner: Learner, keeper: Strategy) -> dict[str, Any]:
    tensors, values = keeper.state_dict()
    weights = {k: v.clone() for k, v in learner.state_dict().items()}
    return {"growth": list(learner.growth), "learner": weights, "keeper": (copy.deepcopy(tensors), values)}


def _taken(learner: Learner, keeper: Strategy, state: dict[str, Any]) -> None:
    for name in state["growth"][len(learner.growth) :]:
        learner.begin(name)
    learner.load_state_dict(state["learner"])
    keeper.load_state_dict(state["keeper"])


class _Stop(SupervisedPlugin):  # type: ignore[misc]
    """Writes the state down inside the second experience; or, given one, starts from it there."""

    def __init__(self, given: dict[str, Any] | None = None):
        super().__init__()
        self.given, self.state = given, given

    def before_training_epoch(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        if self.given is not None:
            _taken(strategy.learner, strategy.keeper, self.given)
            load_optimizer(strategy.optimizer, _names(strategy), self.given["optimizer"])

    def after_training_iteration(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        if self.given is None and strategy.position == (1, 2):
            moments = optimizer_tensors(strategy.optimizer, _names(strategy))
            self.state = _written(strategy.learner, strategy.keeper)
            self.state["optimizer"] = {k: v.clone() for k, v in moments.items()}


@pytest.mark.parametrize("kind", ["trunk", "mim"])
def test_a_resumed_run_ends_with_the_same_bits(workshop: Any, kind: str) -> None:
    """Stopped inside the second experience, after the queue, the matches and the clusters have filled."""
    learn = {"encoder": {"kind": kind, "mim_steps": 2, "mim_patch": 8, "mim_stages": 4}, "adjust_from": 0.0}
    settings: dict[str, Any] = {"learn": learn, "steps": 4, "seed": 3}
    ended: list[dict[str, Any]] = []
    stop = _Stop()
    whole = workshop.train(
        "guide_space",
        "replay",
        experiences=2,
        plugins=[stop],
        after=lambda _, parts: ended.append(_written(parts.learner, parts.keeper)),
        **settings,
    )
    assert stop.state is not None

    config, parts = workshop.parts("guide_space", "replay", **settings)
    _taken(parts.learner, parts.keeper, ended[0])
    place(parts.learner, parts.device)
    agent = parts.agent(config.train, [_Stop(stop.state)])
    agent.position = (1, 2)
    agent.train(parts.benchmark.train_stream[1], eval_streams=[])
    mine = parts.learner.state_dict()
    assert mine.keys() == whole.weights.keys()
    for name, value in whole.weights.items():
        assert torch.equal(mine[name], value), name


def test_frozen_statistics_can_be_kept_in_place_of_pictures(workshop: Any) -> None:
    trunk = {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 4}
    learn = {"trunk": trunk, "pooling": "statistics"}
    run = workshop.train("guide_space", "replay", learn=learn, kept_views=2)
    assert {"decision", "guide", "push", "pull"} <= set(run.losses[-1])
    assert bool(run.parts.learner.standard.met)
    with pytest.raises(FFDError, match="kept_views"):
        workshop.train("guide_space", learn={**learn, "encoder": {"kind": "mim"}}, kept_views=2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pooling": "max"}, "learner.pooling"),
        ({"pooling": "statistics", "trunk": TrunkConfig("test_efficientnet", "none", 0)}, "frozen_stages"),
        ({"neighbours": 0}, "learner.neighbours"),
        ({"temperature": 0.0}, "learner.temperature"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(FFDError, match=words):
        GuideSpace(GuideSpaceConfig(**{"trunk": TRUNK, "features": 8, **settings}))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["efficientnet_b4", "legacy_xception", "resnet50", "dpn68", "vgg19"])
def test_the_papers_backbones_take_a_step(batches: list[Batch], backbone: str) -> None:
    torch.manual_seed(0)
    trunk = TrunkConfig(backbone=backbone, weights="none", frozen_stages=0)
    learner = GuideSpace(GuideSpaceConfig(trunk=trunk, push_weight=0.0, pull_weight=0.0))
    learner.begin("alpha")
    batch = batches[0]._replace(image=torch.nn.functional.interpolate(batches[0].image, size=(64, 64)))
    optimizer = torch.optim.SGD(learner.param_groups(0.01, 0.0), lr=0.01)
    before = learner.head.weight.detach().clone()
    loss = torch.stack(list(learner.step(batch)[1].values())).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert bool(torch.isfinite(loss))
    assert not torch.equal(learner.head.weight, before)
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in learner.trunk.parameters())


GRIDS = ("ablation", "theta", "clusters", "backbones")


@pytest.mark.parametrize("name", GRIDS)
def test_every_row_of_the_grids_is_another_experiment(name: str) -> None:
    grid = fill(Grid, read_yaml(str(ROOT / "configs" / "grids" / f"guide_space_{name}.yaml")), "grid")
    base = read_yaml(grid.base)
    seen = [config_from(apply_sets(base, changes)) for changes in grid.methods.values()]
    same = {"faces-16", "k-55"}  # both are the base
    labels = [label for label in grid.methods if label not in same]
    distinct = {repr((c.learner, c.train)) for label, c in zip(grid.methods, seen, strict=True) if label in labels}
    assert len(distinct) == len(labels)
