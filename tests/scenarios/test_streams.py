"""From a manifest to streams: who is seen where, through which camera, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import Manifest, make_manifest
from ffd_continual.scenarios.streams import Scenario, ScenarioConfig, build_scenario


def _manifest(people: int = 40, forgeries: tuple[str, ...] = ("alpha", "beta", "gamma", "delta")) -> Manifest:
    rows: list[dict[str, Any]] = []
    for person in range(people):
        split = "train" if person < people * 0.5 else "valid" if person < people * 0.75 else "test"
        for forgery in ("real", *forgeries):
            rows.append(
                {
                    "path": f"{forgery}/p{person}.png", "label": int(forgery != "real"), "forgery": forgery,
                    "split": split, "identity": f"p{person}",
                }
            )  # fmt: skip
    return make_manifest(pd.DataFrame(rows), Path("/faces"))


def _build(manifest: Manifest | None = None, **settings: Any) -> Scenario:
    settings = {"data": "faces", "order": ("alpha", "beta"), "unseen": ("gamma",), **settings}
    return build_scenario(_manifest() if manifest is None else manifest, ScenarioConfig(**settings))


def _part(scenario: Scenario, stream: str, name: str) -> pd.DataFrame:
    return scenario.rows.iloc[scenario.index(stream, name)]


def test_streams_hold_what_their_names_say() -> None:
    scenario = _build(order=("beta", "alpha"))
    assert scenario.experiences == ("beta", "alpha")
    assert scenario.unseen == ("gamma",)
    assert scenario.names == ("real", "beta", "alpha", "gamma")
    for stream in ("train", "valid", "test"):
        for name in ("beta", "alpha"):
            part = _part(scenario, stream, name)
            assert set(part["forgery"]) == {"real", name}
            assert set(part["split"]) == {stream}
    unseen = _part(scenario, "unseen", "gamma")
    assert set(unseen["forgery"]) == {"real", "gamma"}
    assert set(unseen["split"]) == {"test"}
    assert "delta" not in set(scenario.rows["forgery"])
    assert len(scenario.index("train", "gamma")) == 0
    assert _part(scenario, "train", "beta")["path"].iloc[0] == "/faces/real/p0.png"


def test_no_order_means_all_by_name_but_the_unseen() -> None:
    assert _build(order=(), unseen=("beta",)).experiences == ("alpha", "delta", "gamma")


def test_a_group_is_one_experience() -> None:
    scenario = _build(order=("alpha+ beta", "delta"))
    assert scenario.experiences == ("alpha+ beta", "delta")
    assert set(_part(scenario, "train", "alpha+ beta")["forgery"]) == {"real", "alpha", "beta"}
    assert scenario.names == ("real", "alpha", "beta", "delta", "gamma")


def test_test_streams_hold_nobody_who_is_trained_on() -> None:
    for people in ("shared", "own"):
        rows = _build(people=people).rows
        trained = set(rows.loc[rows["stream"].isin(["train", "valid"]), "person"])
        judged = set(rows.loc[rows["stream"].isin(["test", "unseen"]), "person"])
        assert trained
        assert judged
        assert not trained & judged


def test_shared_reals_are_in_every_experience_and_split_ones_in_one() -> None:
    def reals(scenario: Scenario, stream: str) -> list[set[str]]:
        return [set(_part(scenario, stream, n).query("label == 0")["path"]) for n in scenario.experiences]

    one, two = reals(_build(), "train")
    assert one == two
    split = _build(reals="split")
    for stream in ("train", "valid"):
        one, two = reals(split, stream)
        assert not one & two
        assert one | two == reals(_build(), stream)[0]
    assert reals(split, "test")[0] == reals(split, "test")[1]  # judged on the same people
    forged = [set(_part(split, "train", n).query("label == 1")["person"]) for n in split.experiences]
    assert forged[0] == forged[1]


def test_own_people_meet_one_experience_only() -> None:
    scenario = _build(people="own", order=("alpha", "beta", "delta"))
    people = [
        {p for s in ("train", "valid") for p in _part(scenario, s, name)["person"]} for name in scenario.experiences
    ]
    assert not people[0] & people[1]
    assert not people[0] & people[2]
    assert not people[1] & people[2]
    assert sum(map(len, people)) == 30
    more = _build(_manifest(60), people="own", order=("alpha", "beta", "delta"))
    for name, before in zip(scenario.experiences, people, strict=True):
        now = {p for s in ("train", "valid") for p in _part(more, s, name)["person"]}
        assert before <= now  # people added later move nobody


def test_people_fall_elsewhere_under_another_seed() -> None:
    def first(seed: int) -> set[str]:
        return set(_part(_build(people="own", seed=seed), "train", "alpha")["person"])

    assert first(0) == first(0)
    assert first(0) != first(3)


def test_cameras_by_experience_by_rest_and_mixed() -> None:
    from ffd_continual.scenarios.capture import PROFILES

    one, two = sorted(PROFILES)[:2]
    scenario = _build(profiles={"alpha": one, "beta": two, "gamma": "mixed"}, order=("alpha", "beta"))
    assert set(_part(scenario, "train", "alpha")["profile"]) == {one}
    assert set(_part(scenario, "test", "beta")["profile"]) == {two}
    mixed = _part(scenario, "unseen", "gamma")
    assert set(mixed["profile"]) == {one, two}
    assert (mixed.groupby("person")["profile"].nunique() == 1).all()  # real and forged through the same camera
    assert set(scenario.profiles) == {one, two}
    rest = _build(profiles={"*": one, "beta": two})
    assert set(_part(rest, "unseen", "gamma")["profile"]) == {one}
    assert set(_part(_build(), "train", "alpha")["profile"]) == {""}


def test_a_camera_for_what_is_not_there_is_refused() -> None:
    with pytest.raises(FFDError, match=r"'alpa' is no experience, and no forgery of faces.*alpha, beta"):
        _build(profiles={"alpa": "phone"})
    _build(profiles={"delta": ""})  # a forgery of the data that this scenario leaves out


def test_faces_that_stand_twice_are_told() -> None:
    table = _manifest().table
    twice = make_manifest(pd.concat([table, table[table["path"] == "alpha/p3.png"]]), Path("/faces"))
    assert any("1 faces stand twice in one stream" in note for note in _build(twice).notes)
    assert not _build().notes


def test_index_gives_ascending_rows_and_streams_do_not_overlap() -> None:
    scenario = _build()
    found = [scenario.index(s, n) for s in ("train", "valid", "test") for n in scenario.experiences]
    found.append(scenario.index("unseen", "gamma"))
    together = np.concatenate(found)
    assert all((np.diff(part) > 0).all() for part in found)
    assert sorted(together.tolist()) == list(range(len(scenario.rows)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"order": ("alpha", "omega")}, ["'omega'", "It holds: alpha, beta, delta, gamma"]),
        ({"unseen": ("alpha",)}, ["alpha named twice"]),
        ({"order": ("alpha+beta", "beta")}, ["beta named twice"]),
        ({"order": (), "unseen": ("alpha", "beta", "gamma", "delta")}, ["no forgery is left to train on"]),
        ({"people": "mine"}, ["scenario.people", "'mine'"]),
        ({"reals": "none"}, ["scenario.reals", "'none'"]),
        ({"profiles": {"alpha": "box brownie"}}, ["unknown camera box brownie", "Known: "]),
    ],
)
def test_errors_teach(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(FFDError) as caught:
        _build(**settings)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("stream", ["train", "valid", "test"])
@pytest.mark.parametrize(("label", "word"), [(0, "real"), (1, "forged")])
def test_an_experience_of_one_class_is_refused_by_name(stream: str, label: int, word: str) -> None:
    table = _manifest().table
    gone = (table["split"] == stream) & (table["label"] == label) & (table["forgery"] != "beta")
    manifest = make_manifest(table[~gone], Path("/faces"))
    with pytest.raises(FFDError, match=f"{stream} stream of 'alpha' has no {word} face") as caught:
        _build(manifest)
    assert "add people" in str(caught.value)
    if label:
        assert "stream of 'beta'" not in str(caught.value)


def test_few_people_cannot_be_split_among_experiences() -> None:
    with pytest.raises(FFDError, match="has no real face"):
        _build(_manifest(4), people="own", order=("alpha", "beta", "delta"))


def test_labels_that_contradict_their_forgery_are_refused_before_training() -> None:
    manifest = _manifest()
    table = manifest.table.copy()
    table.loc[table["forgery"] == "alpha", "forgery"] = "real"
    with pytest.raises(FFDError, match=r"row 2: label 1 contradicts forgery 'real', as in 40 of 200 rows"):
        _build(replace(manifest, table=table))


def test_a_plus_in_a_forgerys_name_is_told_from_joining() -> None:
    manifest = _manifest(forgeries=("alpha", "beta", "alpha+beta"))
    assert set(_part(_build(manifest, order=("alpha",), unseen=()), "test", "alpha")["forgery"]) == {"real", "alpha"}
    for settings in ({"order": ("alpha+beta",), "unseen": ()}, {"order": (), "unseen": ()}):
        with pytest.raises(FFDError, match=r"calls a forgery 'alpha\+beta'.*Rename"):
            _build(manifest, **settings)
