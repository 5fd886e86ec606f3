"""Splits of FaceForensics++-like pairs: in 071_054 the face of 054 is on 071, so both stay on one side."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from ffd_continual.scenarios.check import split_faults
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import make_manifest
from ffd_continual.scenarios.splits import assign_splits, link_groups

METHODS = ("deepfakes", "face2face", "faceswap", "neuraltextures", "faceshifter")


def faceforensics(count: int = 40, frames: int = 2, mutual: bool = True, seed: int = 0) -> pd.DataFrame:
    """Real videos 000.. and forged <target>_<source> of couples, both ways (`mutual`) as the official list has them."""
    rng = np.random.default_rng(seed)
    names = [f"{i:03d}" for i in range(count)]
    shuffled = rng.permutation(names).tolist()
    couples = [(shuffled[i], shuffled[i + 1]) for i in range(0, count, 2)]
    couples = couples + [(b, a) for a, b in couples] if mutual else couples
    rows = [
        {"forgery": "real", "label": 0, "video": f"youtube/{name}", "identity": name, "source_identity": "", "frame": f}
        for name in names
        for f in range(frames)
    ]
    rows += [
        {"forgery": m, "label": 1, "video": f"{m}/{t}_{s}", "identity": t, "source_identity": s, "frame": f}
        for m, (t, s), f in itertools.product(METHODS, couples, range(frames))
    ]
    table = pd.DataFrame(rows).assign(dataset="faceforensics", split="")
    return table.assign(path=[f"{row.video}/{row.frame}.png" for row in table.itertuples()])


def sides(table: pd.DataFrame) -> dict[str, set[str]]:
    """The splits in which each person's face stands, as a face or as a source."""
    found: dict[str, set[str]] = {}
    for row in table.itertuples():
        for person in {row.identity, row.source_identity} - {""}:
            found.setdefault(person, set()).add(row.split)
    return found


@pytest.mark.parametrize("mutual", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_target_and_source_stand_on_one_side(seed: int, mutual: bool) -> None:
    table = assign_splits(faceforensics(mutual=mutual, seed=seed), seed)
    assert set(table["split"]) == {"train", "valid", "test"}
    assert all(len(splits) == 1 for splits in sides(table).values())
    for video, part in table.groupby("video"):
        assert part["split"].nunique() == 1, video
    forged = table[table["label"] == 1]
    by_person = {person: next(iter(splits)) for person, splits in sides(table).items()}
    assert (forged["split"] == forged["source_identity"].map(by_person)).all()
    assert split_faults(make_manifest(table, ".")) == []


def test_a_couple_is_one_group_and_couples_are_many() -> None:
    table = faceforensics()
    member, _, _ = link_groups(table)
    assert len(set(member.tolist())) == 20  # 40 videos in 20 couples
    for row in table[table["label"] == 1].itertuples():
        target = table.index[(table["identity"] == row.identity) & (table["label"] == 0)][0]
        source = table.index[(table["identity"] == row.source_identity) & (table["label"] == 0)][0]
        assert member[row.Index] == member[target] == member[source]


def test_a_filled_split_pulls_the_couple_along() -> None:
    table = faceforensics()
    forged = table[table["label"] == 1].iloc[0]
    alone = (table["identity"] == forged["source_identity"]) & (table["label"] == 0)
    table.loc[alone, "split"] = "test"
    filled = assign_splits(table, 0)
    both = filled["identity"].isin([forged["identity"], forged["source_identity"]])
    assert set(filled.loc[both, "split"]) == {"test"}


def test_a_couple_torn_apart_is_refused_and_named() -> None:
    table = faceforensics()
    forged = table[table["label"] == 1].iloc[0]
    target, source = str(forged["identity"]), str(forged["source_identity"])
    torn = table.copy()
    torn.loc[(torn["identity"] == target) & (torn["label"] == 0), "split"] = "train"
    torn.loc[(torn["identity"] == source) & (torn["label"] == 0), "split"] = "test"
    with pytest.raises(FFDError, match="stand in train and test already|stand in test and train already"):
        assign_splits(torn, 0)
    # Written by others: the official-looking split that looks at the target alone.
    by_target = table["identity"].map({name: ("train", "test")[int(name) % 2] for name in table["identity"]})
    table["split"] = by_target
    faults = split_faults(make_manifest(table, "."))
    crossing = {
        row.source_identity
        for row in table[table["label"] == 1].itertuples()
        if (int(row.identity) + int(row.source_identity)) % 2
    }
    named = {
        name
        for name in crossing
        for fault in faults
        if fault.kind == "identity-in-two-splits" and repr(name) in fault.message
    }
    assert crossing
    assert named == crossing
    lines = {fault.row for fault in faults if fault.column == "source_identity"}
    assert lines, "the rows where the source crosses are named"


def test_sources_are_told_apart_by_data_set() -> None:
    one, other = faceforensics(12), faceforensics(12, seed=3).assign(dataset="celebdf")
    both = pd.concat([one, other.assign(path="celeb/" + other["path"])], ignore_index=True)
    filled = assign_splits(both, 1)
    member, _, _ = link_groups(both)
    assert len(set(member[: len(one)].tolist()) & set(member[len(one) :].tolist())) == 0
    for _, part in filled.groupby("dataset"):
        assert all(len(splits) == 1 for splits in sides(part).values())
