"""Real faces by data set: who is in which stream, who has people of one's own, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import Manifest, make_manifest
from ffd_continual.scenarios.streams import Scenario, ScenarioConfig, build_scenario

SETS = {"one": ("swap", "warp"), "two": ("morph",), "three": ("inpaint",)}
STREAMS = ("train", "valid", "test")


def _manifest(
    sets: Mapping[str, tuple[str, ...]] = SETS, people: int = 40, lent: Mapping[str, str] | None = None
) -> Manifest:
    """Data sets of people with the same names, each person once real and once in each of the set's forgeries.

    lent: data set -> the one from which the sources of its forged faces are taken, always the next person there.
    """
    rows: list[dict[str, Any]] = []
    for name, forgeries in sets.items():
        for person in range(people):
            split = "train" if person < people // 2 else "valid" if person < people * 3 // 4 else "test"
            for forgery in ("real", *forgeries):
                row = {
                    "path": f"{name}/{forgery}/{person}.png", "label": int(forgery != "real"), "forgery": forgery,
                    "split": split, "identity": f"{name}-{person}", "dataset": name, "source_identity": "",
                }  # fmt: skip
                if lent and name in lent and forgery != "real":
                    row["source_identity"] = f"{lent[name]}-{person - 1 if person % 10 == 9 else person + 1}"
                rows.append(row)
    return make_manifest(pd.DataFrame(rows), Path("/faces"))


def _build(manifest: Manifest | None = None, **settings: Any) -> Scenario:
    settings = {"data": "faces", "order": ("swap", "morph", "warp"), "reals": "dataset", **settings}
    return build_scenario(_manifest() if manifest is None else manifest, ScenarioConfig(**settings))


def _part(scenario: Scenario, stream: str, name: str) -> pd.DataFrame:
    return scenario.rows.iloc[scenario.index(stream, name)]


def _shown(scenario: Scenario, stream: str, name: str) -> tuple[set[str], set[str]]:
    """Paths of the real and of the forged faces."""
    part = _part(scenario, stream, name)
    return set(part.loc[part["label"] == 0, "path"]), set(part.loc[part["label"] == 1, "path"])


def test_every_stream_holds_the_real_faces_of_its_own_data_set() -> None:
    scenario = _build(unseen=("inpaint",))
    people = {"train": range(20), "valid": range(20, 30), "test": range(30, 40)}
    for stream, name, dataset in [
        *((s, n, d) for s in STREAMS for n, d in (("swap", "one"), ("morph", "two"), ("warp", "one"))),
        ("unseen", "inpaint", "three"),
    ]:
        chosen = people["test" if stream == "unseen" else stream]
        real, forged = _shown(scenario, stream, name)
        assert real == {f"/faces/{dataset}/real/{p}.png" for p in chosen}
        assert forged == {f"/faces/{dataset}/{name}/{p}.png" for p in chosen}


def test_a_group_over_two_data_sets_has_the_real_faces_of_both() -> None:
    scenario = _build(order=("swap+morph", "inpaint"))
    assert {path.split("/")[2] for path in _shown(scenario, "train", "swap+morph")[0]} == {"one", "two"}
    assert {path.split("/")[2] for path in _shown(scenario, "train", "inpaint")[0]} == {"three"}
    spread = _manifest({"one": ("swap",), "two": ("swap", "morph")})  # one forgery, made in two data sets
    scenario = _build(spread, order=("swap", "morph"))
    assert {path.split("/")[2] for path in _shown(scenario, "test", "swap")[0]} == {"one", "two"}
    assert {path.split("/")[2] for path in _shown(scenario, "test", "morph")[0]} == {"two"}


@pytest.mark.parametrize("people", ["shared", "own", "apart"])
@pytest.mark.parametrize("sets", [{"one": ("swap", "warp", "morph")}, {"": ("swap", "warp", "morph")}])
def test_on_one_data_set_it_is_shared(people: str, sets: Mapping[str, tuple[str, ...]]) -> None:
    manifest = _manifest(sets, lent={name: name for name in sets})
    ours, shared = (_build(manifest, people=people, reals=reals) for reals in ("dataset", "shared"))
    assert ours.rows.equals(shared.rows)
    assert ours.notes == shared.notes
    assert len(ours.rows) > 50


def test_own_people_are_dealt_within_a_data_set() -> None:
    """Alone in its data set an experience has everybody; two that share one have half each, and nobody is lost."""
    scenario = _build(people="own")
    for stream, count in (("train", 20), ("valid", 10)):
        alone = set(_part(scenario, stream, "morph")["person"])
        assert len(alone) == count
        swap, warp = (set(_part(scenario, stream, name)["person"]) for name in ("swap", "warp"))
        assert swap
        assert warp
        assert not swap & warp
        assert len(swap | warp) == count
        for name in ("swap", "warp"):
            real, forged = _shown(scenario, stream, name)
            assert len(real) == len(forged)
    assert set(_part(scenario, "test", "swap")["person"]) == set(_part(scenario, "test", "warp")["person"])


def test_apart_keeps_sources_within_an_experience_and_says_whose_faces_are_left_out() -> None:
    manifest = _manifest(lent={"one": "one"})
    scenario = _build(manifest, people="apart")
    whose: dict[str, set[str]] = {}
    for name in ("swap", "warp"):
        part = pd.concat([_part(scenario, stream, name) for stream in ("train", "valid")])
        whose[name] = set(part["identity"]) | (set(part["source_identity"]) - {""})
    assert len(whose["swap"]) > 5
    assert len(whose["warp"]) > 5
    assert not whose["swap"] & whose["warp"]
    assert len(_part(scenario, "train", "morph")) == 40  # the other data set loses nobody
    (note,) = scenario.notes
    assert note.startswith("data set 'one': ")


def test_a_data_set_without_real_faces_is_named() -> None:
    table = _manifest().table
    bare = make_manifest(table[(table["dataset"] != "two") | (table["label"] == 1)], Path("/faces"))
    with pytest.raises(FFDError) as caught:
        _build(bare)
    for words in ("no real face of data set 'two'", "forged faces of morph", "'one', 'three'", "scenario.reals=shared"):
        assert words in str(caught.value)
    assert _build(bare, order=("swap", "warp")).experiences == ("swap", "warp")  # nobody asks for it


def test_data_sets_partly_in_common_cannot_be_dealt() -> None:
    spread = _manifest({"one": ("swap",), "two": ("swap", "morph")})
    with pytest.raises(FFDError) as caught:
        _build(spread, order=("swap", "morph"), people="own")
    for words in ("scenario.people=own", "swap and morph", "'one', 'two' and 'two'", "scenario.people=shared"):
        assert words in str(caught.value)
    lent = _manifest({"one": ("swap",), "two": ("morph",)}, lent={"one": "two"})
    assert len(_build(lent, order=("swap", "morph"), people="own").rows) > 0
    with pytest.raises(FFDError, match=r"swap and morph come from data sets 'one', 'two' and 'two'"):
        _build(lent, order=("swap", "morph"), people="apart")
