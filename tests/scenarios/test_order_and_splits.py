"""Whatever the scenario: nobody crosses a split, and a face belongs to its forgery under every order."""

from __future__ import annotations

import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ffd_continual.config import apply_sets, config_from, fill, read_yaml
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import Manifest, make_manifest
from ffd_continual.scenarios.people import PEOPLE
from ffd_continual.scenarios.splits import assign_splits
from ffd_continual.scenarios.streams import Scenario, ScenarioConfig, build_scenario, learning_order
from ffd_continual.sweeping.grid import Grid

GRIDS = Path(__file__).resolve().parents[2] / "configs" / "grids"
FORGERIES = ("alpha", "beta", "gamma", "delta")


def _rows(people: int, lent: list[int], frames: int, splits: list[str]) -> pd.DataFrame:
    """Real and four forgeries of each person, `frames` each of one video; alpha and beta borrow the face of another."""
    rows = []
    for person in range(people):
        for forgery in ("real", *FORGERIES):
            source = f"p{lent[person] % people}" if forgery in ("alpha", "beta") else ""
            for frame in range(frames):
                row = {"path": f"{forgery}/p{person}_{frame}.png", "label": int(forgery != "real"), "forgery": forgery}
                row |= {"split": splits[person] if splits else "", "identity": f"p{person}", "frame": str(frame)}
                row |= {"video": f"{forgery}{person}", "dataset": "one", "source_identity": source}
                rows.append(row)
    return pd.DataFrame(rows)


def _manifest(rows: pd.DataFrame) -> Manifest:
    return make_manifest(rows, Path("/faces"))


def _people(part: pd.DataFrame) -> set[str]:
    return set(part["identity"]) | {source for source in part["source_identity"] if source}


def _crossing(scenario: Scenario) -> list[str]:
    """What stands on two sides of a split, told by comparing every pair of splits; empty: nothing."""
    rows, found = scenario.rows, []
    streams = {split: rows[rows["split"] == split] for split in ("train", "valid", "test")}
    for one, two in combinations(streams, 2):
        first, second = streams[one], streams[two]
        found += [f"person {p} in {one} and {two}" for p in _people(first) & _people(second)]
        found += [f"video {v} in {one} and {two}" for v in set(first["video"]) & set(second["video"])]
        found += [f"picture {p} in {one} and {two}" for p in set(first["path"]) & set(second["path"])]
    return found


KINDS = st.fixed_dictionaries(
    {
        "people": st.sampled_from(PEOPLE),
        "reals": st.sampled_from(("shared", "split")),
        "order": st.sampled_from((("alpha", "beta"), ("beta", "alpha", "delta"), ("alpha+delta", "beta"), ("gamma",))),
        "judged": st.sampled_from(("test", "valid")),
        "permuted": st.integers(-1, 5),
        "seed": st.integers(0, 3),
    }
)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(KINDS, st.integers(36, 60), st.lists(st.integers(0, 59), min_size=60, max_size=60), st.integers(1, 2), st.data())
def test_nobody_crosses_a_split(
    kind: dict[str, Any], people: int, borrowed: list[int], frames: int, data: st.DataObject
) -> None:
    # Chains of lenders would unite everybody; pairs of neighbours lend to one another.
    lent = [p ^ 1 if borrowed[p // 2] % 2 and p ^ 1 < people else p for p in range(people)]
    by = data.draw(st.sampled_from(("identity", "own column")))
    rows = _rows(people, lent, frames, [])
    if by == "identity":
        rows = assign_splits(rows, kind["seed"])
    else:
        place = data.draw(st.lists(st.sampled_from(("train", "train", "valid", "test")), min_size=60, max_size=60))
        rows = _rows(people, lent, frames, [place[p - p % 2] for p in range(people)])
    unseen = tuple(f for f in FORGERIES if all(f not in entry.split("+") for entry in kind["order"]))
    try:
        scenario = build_scenario(_manifest(rows), ScenarioConfig(data="faces", unseen=unseen, **kind))
    except FFDError as error:
        assume("has no" not in str(error))  # too few people for this many experiences
        raise
    assert _crossing(scenario) == []
    trained = scenario.rows[scenario.rows["stream"].isin(["train", "valid"])]
    judged = scenario.rows[scenario.rows["stream"].isin(["test", "unseen"])]
    if kind["judged"] == "test":
        assert not _people(trained) & _people(judged)
        assert not set(trained["video"]) & set(judged["video"])
    else:  # settings are chosen on validation people: never on those that are learnt from
        assert not _people(trained[trained["stream"] == "train"]) & _people(judged)
    for one, two in combinations(scenario.experiences, 2):
        first, second = (trained[trained["experience"] == name] for name in (one, two))
        if kind["people"] == "own":
            assert not set(first["identity"]) & set(second["identity"])
        if kind["people"] == "apart":
            assert not _people(first) & _people(second)
        if kind["reals"] == "split":
            assert not set(first.query("label == 0")["identity"]) & set(second.query("label == 0")["identity"])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(("train", "valid", "test")), min_size=24, max_size=24), st.integers(0, 200))
def test_a_crossing_is_refused(place: list[str], moved: int) -> None:
    """One row's split is set to another one: the run is refused if and only if the loops above find a crossing."""
    rows = _rows(24, list(range(24)), 1, place)
    rows["source_identity"] = ""
    assume(all(place.count(split) >= 3 for split in ("train", "valid", "test")))
    at = moved % len(rows)
    rows.loc[at, "split"] = "test" if rows.loc[at, "split"] != "test" else "train"
    asked: dict[str, Any] = {"data": "faces", "order": ("alpha", "beta"), "unseen": ("gamma",)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        crossing = _crossing(build_scenario(_manifest(rows), ScenarioConfig(**asked, leaks="allow")))
    if crossing:
        with pytest.raises(FFDError, match="leak"):
            build_scenario(_manifest(rows), ScenarioConfig(**asked))
    else:
        build_scenario(_manifest(rows), ScenarioConfig(**asked))


@pytest.mark.parametrize("people", PEOPLE)
def test_the_same_faces_belong_to_a_forgery_in_every_order(people: str) -> None:
    manifest = _manifest(assign_splits(_rows(60, [p ^ 1 for p in range(60)], 1, []), 0))
    asked: dict[str, Any] = {"data": "faces", "order": ("alpha", "beta", "delta"), "unseen": ("gamma",)}
    asked |= {"people": people, "reals": "split", "profiles": {"alpha": "camera1", "beta": "camera2", "*": "mixed"}}
    asked["profiles"]["delta"] = "camera3"

    def faces(permuted: int) -> tuple[tuple[str, ...], dict[tuple[str, str], set[tuple[str, str]]]]:
        scenario = build_scenario(manifest, ScenarioConfig(**asked, permuted=permuted))
        groups = scenario.rows.groupby(["stream", "experience"])
        found = {key: set(zip(part["path"], part["profile"], strict=True)) for key, part in groups}
        assert sorted(scenario.names) == sorted(("real", *FORGERIES))
        assert scenario.names[1:4] == scenario.experiences  # forgeries are numbered as they are learnt
        return scenario.experiences, found

    order, wanted = faces(-1)
    assert order == ("alpha", "beta", "delta")
    orders = set()
    for permuted in range(12):
        order, found = faces(permuted)
        assert sorted(order) == ["alpha", "beta", "delta"]
        assert found == wanted
        assert permuted > 2 or order == faces(permuted)[0]
        orders.add(order)
    assert len(orders) == 6  # every order comes up


def test_orders_are_permutations_and_a_lower_number_is_refused() -> None:
    assert learning_order(4, -1) == [0, 1, 2, 3]
    assert all(sorted(learning_order(5, number)) == [0, 1, 2, 3, 4] for number in range(20))
    with pytest.raises(FFDError, match="scenario.permuted is -1"):
        learning_order(4, -2)


def test_the_controls_configurations_are_what_they_say() -> None:
    assert read_yaml("control_shuffled")["scenario"]["labels"] == "shuffled"
    splits = config_from(read_yaml("control_splits")).scenario
    assert (splits.people, splits.leaks) == ("apart", "error")
    for name in ("control_orders", "control_shuffled"):
        grid = fill(Grid, read_yaml(str(GRIDS / f"{name}.yaml")), "grid")
        cells = [config_from(apply_sets(read_yaml(grid.base), [*grid.set, *s])) for s in grid.cells().values()]
        assert len(cells) == len(grid.cells()) > 0
    grid = fill(Grid, read_yaml(str(GRIDS / "control_orders.yaml")), "grid")
    drawn = [config_from(apply_sets(read_yaml("demo"), list(s))).scenario for s in grid.cells().values()]
    assert len({tuple(learning_order(len(s.order), s.permuted)) for s in drawn}) == len(drawn) > 2  # none twice
