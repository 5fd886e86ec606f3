"""Shuffled labels: the numbers stay, nothing betrays the true label, and what is judged is not touched."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ffd_continual.config import config_from
from ffd_continual.scenarios.dataset import Request, make_sources, train_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import read_manifest
from ffd_continual.scenarios.shuffled import deal_evenly, shuffle_labels
from ffd_continual.scenarios.streams import Scenario, ScenarioConfig, build_scenario
from ffd_continual.scenarios.table import FaceTable, prepare_table
from ffd_continual.scenarios.views import ViewConfig


@pytest.fixture(scope="module")
def laid_out(tiny_faces: Path) -> tuple[Scenario, FaceTable]:
    settings = {"order": ("alpha", "beta"), "unseen": ("gamma",), "size": 32}
    scenario = build_scenario(read_manifest(tiny_faces), ScenarioConfig(data=str(tiny_faces), **settings))  # type: ignore[arg-type]
    return scenario, prepare_table(scenario.rows, scenario.names, 32, 0, {}, need_mask=True, need_pair=True)


def test_a_deal_by_hand() -> None:
    # Three real and three forged at equal distances alternate, whatever the start: f r f r f r or r f r f r f. The
    # forged faces stand first in the sorted line and take three neighbours of it, the real ones the others: each class
    # keeps one or two of its own three labels, never none or all.
    old = np.array(["real", "swap"] * 3)
    kept = set()
    for seed in range(40):
        new = deal_evenly(old, np.random.default_rng(seed))
        assert Counter(new.tolist()) == {"real": 3, "swap": 3}
        kept.add(sum(o == n == "swap" for o, n in zip(old.tolist(), new.tolist(), strict=True)))
    assert kept == {1, 2}


@pytest.mark.parametrize("counts", [{"real": 140, "a": 140}, {"real": 50, "a": 31, "b": 9}, {"real": 1, "a": 7}])
def test_every_class_gets_every_label_in_its_share(counts: dict[str, int]) -> None:
    old = np.array([name for name, count in counts.items() for _ in range(count)])
    where = []
    for seed in range(10):
        new = deal_evenly(old, np.random.default_rng(seed))
        assert Counter(new.tolist()) == counts
        for before, size in counts.items():
            for after, count in counts.items():
                got = sum(b == before and a == after for b, a in zip(old.tolist(), new.tolist(), strict=True))
                # a window of `size` of the line holds its share of copies that stand at equal distances, give or take
                assert abs(got - size * count / len(old)) <= 2
        where.append(new.tolist())
    assert len(old) < 10 or all(one != two for one, two in pairwise(where))


def test_only_labels_of_train_and_valid_change(laid_out: tuple[Scenario, FaceTable]) -> None:
    scenario, table = laid_out
    made = shuffle_labels(table, 0)
    before, after = table.rows, made.rows
    others = [c for c in before.columns if c not in ("forgery", "label")]
    assert after[others].equals(before[others])
    assert (after["label"] == (after["forgery"] != "real")).all()
    for stream in ("train", "valid"):
        for name in scenario.experiences:
            rows = scenario.index(stream, name)
            old, new = before["forgery"].to_numpy()[rows], after["forgery"].to_numpy()[rows]
            assert Counter(old.tolist()) == Counter(new.tolist())
            told = np.corrcoef(old == "real", new == "real")[0, 1]
            assert abs(told) <= 2 / (len(rows) / 2)  # one face more or less
    judged = before["stream"].isin(["test", "unseen"]).to_numpy()
    assert after[judged].equals(before[judged])
    assert shuffle_labels(table, 0).rows.equals(after)
    assert not shuffle_labels(table, 1).rows["label"].equals(after["label"])


def test_nothing_else_betrays_a_training_face(laid_out: tuple[Scenario, FaceTable]) -> None:
    scenario, table = laid_out
    made = shuffle_labels(table, 0)
    train = (table.rows["stream"] == "train").to_numpy()
    taught, judged = made.slot[train], made.slot[made.rows["stream"].isin(["test", "unseen"])]
    for source in (table, made):
        known = [source.mask_known[judged], source.pair_known[judged], source.landmarks[judged], source.masks[judged]]
        if source is table:
            wanted = known
    assert all(
        np.array_equal(one, two, equal_nan=one.dtype == np.float32) for one, two in zip(known, wanted, strict=True)
    )
    assert table.mask_known[taught].any()  # there was something to take away
    assert table.pair_known[taught].any()
    for what in (made.mask_known[taught], made.pair_known[taught], made.masks[taught]):
        assert not what.any()
    assert np.isnan(made.landmarks[taught]).all()
    wants = frozenset({"mask", "pair", "pseudo", "view2"})
    assert make_sources(table, scenario, ViewConfig(), frozenset(), wants, 0).needs == wants
    sources = make_sources(made, scenario, ViewConfig(), frozenset(), wants, 0)
    assert sources.needs == {"view2"}
    batch = train_batch(sources, Request(tuple(int(r) for r in np.flatnonzero(train)[:12]), 0, 0))
    assert not batch.mask_known.any()
    assert not batch.pair_known.any()
    assert batch.mask.shape[1] == batch.pair.shape[1] == batch.pseudo.shape[1] == 0
    assert batch.target.tolist() == made.rows["label"].to_numpy()[train][:12].tolist()


def test_other_values_and_learners_that_cannot(tiny_config: dict[str, dict[str, object]], tmp_path: Path) -> None:
    from ffd_continual.runs.assemble import assemble

    tiny_config["scenario"]["labels"] = "random"
    config = config_from(tiny_config)
    with pytest.raises(FFDError, match=r"scenario.labels must be one of given, shuffled, not 'random'"):
        assemble(config, tmp_path, lambda skipped: None)
    trunk = {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 2}
    tiny_config["learner"] = {"name": "plain", "trunk": trunk, "pseudo": 0.25}
    tiny_config["scenario"] |= {"labels": "shuffled", "size": 32}
    with pytest.raises(FFDError, match="gives no pseudo, which would betray the true labels, and learner plain"):
        assemble(config_from(tiny_config), tmp_path, lambda skipped: None)
