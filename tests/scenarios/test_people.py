"""Each experience with its own people: the sources of forged faces are counted, or kept apart as well."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ffd_continual.scenarios.check import split_faults
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import Manifest, make_manifest
from ffd_continual.scenarios.people import grow_groups
from ffd_continual.scenarios.splits import assign_splits, source_datasets
from ffd_continual.scenarios.streams import Scenario, ScenarioConfig, build_scenario

ORDER = ("swap", "warp", "morph")
BORROWING = ("swap", "morph")


def _manifest(people: int = 120, borrowing: tuple[str, ...] = BORROWING) -> Manifest:
    """Faces of all people; swaps and morphs borrow the face of a random other person of the same split."""
    rng = np.random.default_rng(3)
    split = {
        f"p{at}": "train" if at < 0.6 * people else "valid" if at < 0.8 * people else "test" for at in range(people)
    }
    rows = []
    for person in split:
        others = [p for p in split if split[p] == split[person] and p != person]
        for forgery in ("real", *ORDER, "style"):
            rows.append(
                {
                    "path": f"{forgery}/{person}.png", "label": int(forgery != "real"), "forgery": forgery,
                    "split": split[person], "identity": person,
                    "source_identity": str(rng.choice(others)) if forgery in borrowing else "",
                }
            )  # fmt: skip
    return make_manifest(pd.DataFrame(rows), Path("/faces"))


def _build(manifest: Manifest, **settings: Any) -> Scenario:
    return build_scenario(manifest, ScenarioConfig(data="faces", order=ORDER, unseen=("style",), **settings))


def _learnt(scenario: Scenario) -> pd.DataFrame:
    return scenario.rows[scenario.rows["stream"].isin(["train", "valid"])]


def _people(rows: pd.DataFrame) -> dict[str, set[str]]:
    """Everyone whose face an experience shows, as owner or as source."""
    return {
        str(name): (set(part["identity"]) | set(part["source_identity"])) - {""}
        for name, part in rows.groupby("experience")
    }


def _by_hash(person: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}|share|{person}".encode()).digest()[:8], "big") % len(ORDER)


def test_own_places_people_by_hash_and_counts_the_sources() -> None:
    scenario = _build(_manifest(), people="own", seed=4)
    learnt = _learnt(scenario)
    for row in learnt.itertuples():
        assert _by_hash(str(row.identity), 4) == ORDER.index(str(row.experience))
    forged = learnt[learnt["label"] == 1]
    astray = sum(
        bool(row.source_identity) and _by_hash(str(row.source_identity), 4) != ORDER.index(str(row.experience))
        for row in forged.itertuples()
    )
    assert astray > 0
    assert len(forged) == 96  # one forged face of each of the 96 people of train and valid: none is left out
    assert scenario.notes == (
        f"{astray} of 96 forged faces of train and valid hold the face of a person of another experience; "
        "scenario.people=apart keeps these apart",
    )
    without = _build(_manifest(borrowing=()), people="own", seed=4)
    assert without.notes == ()
    assert _build(_manifest(), people="shared").notes == ()


@pytest.mark.parametrize("seed", [0, 1])
def test_apart_shares_nobody_and_loses_few(seed: int) -> None:
    manifest = _manifest()
    scenario = _build(manifest, people="apart", seed=seed)
    learnt = _learnt(scenario)
    people = _people(learnt)
    for at, name in enumerate(ORDER):
        for other in ORDER[:at]:
            assert not people[name] & people[other]
    real = learnt[learnt["label"] == 0].groupby("experience")["identity"].nunique()
    assert real.sum() == 96
    assert real.max() - real.min() <= 2  # equal groups, in train and in valid
    lost = 96 - int((learnt["label"] == 1).sum())
    assert 0 < lost <= 0.12 * 96
    assert scenario.notes == (
        f"{lost} of 96 forged faces of train and valid are left out: they hold the face of a person of another "
        "experience",
    )
    dropped = set(learnt.loc[learnt["label"] == 0, "identity"]) - set(learnt.loc[learnt["label"] == 1, "identity"])
    table = manifest.table.set_index(["forgery", "identity"])["source_identity"]
    where = {str(p): str(e) for p, e in zip(learnt["identity"], learnt["experience"], strict=True)}
    for person in dropped:  # only faces whose source is elsewhere are left out
        assert where[str(table[where[person], person])] != where[person]
    tested = scenario.rows[scenario.rows["stream"] == "test"]
    assert len(tested) == 3 * 2 * 24  # test people are shared, their faces all there
    again = _build(manifest, people="apart", seed=seed)
    pd.testing.assert_frame_equal(again.rows, scenario.rows)


def test_apart_without_sources_is_own() -> None:
    manifest = _manifest(borrowing=())
    own, apart = (_build(manifest, people=p).rows for p in ("own", "apart"))
    pd.testing.assert_frame_equal(own, apart)
    with pytest.raises(FFDError, match="scenario.people must be one of shared, own, apart, not 'alone'"):
        _build(manifest, people="alone")


def test_groups_worked_by_hand() -> None:
    """a borrows from b, b from c, c from a (a ring); d from a; e from f, f from e. Two experiences, the first borrows.

    The first has room for three. It takes a (first by rank, nothing lost), then what a lacks, b, then c; d would have
    been ready next. The second takes d, e, f. Nothing is lost.
    """
    lent = {p: {s} for p, s in zip("abcdef", "bcaafe", strict=True)}
    assert grow_groups(list("abcdef"), [lent, {}]) == dict(zip("abcdef", (0, 0, 0, 1, 1, 1), strict=True))
    # Both borrow, and take turns. 0 takes a; 1 takes b (its source c is free); 0 wants b, which is gone, and takes c
    # (source a is here); 1 wants c, gone, d would lose a, so it takes e; 0 takes d, which is ready; 1 the wanted f.
    # Lost: a (source b) and b (source c).
    placed = grow_groups(list("abcdef"), [lent, lent])
    assert placed == {"a": 0, "b": 1, "c": 0, "e": 1, "d": 0, "f": 1}


def test_a_source_may_come_from_another_data_set() -> None:
    datasets, identities = ["one", "one", "two", "two"], ["001", "anna", "001", "bert"]
    # 001 is each data set's own; anna is known in one only; nobody knows carl.
    assert source_datasets(datasets, identities, ["001", "bert", "anna", "carl"]) == ["one", "two", "one", "two"]
    table = _manifest(60, ()).table
    table["dataset"] = ["one" if int(p[1:]) % 2 else "two" for p in table["identity"]]
    table.loc[table["identity"] == "p0", "source_identity"] = "p59"  # train of two, test of one
    manifest = make_manifest(table, Path("/faces"))
    faults = split_faults(manifest)
    assert {f.kind for f in faults} == {"identity-in-two-splits"}
    split = assign_splits(table.assign(split=""), 0)
    assert split.loc[split["identity"].isin(["p0", "p59"]), "split"].nunique() == 1
