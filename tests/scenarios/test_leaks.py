"""A person, video or picture on two sides of a split ends a run before it starts."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.folder import open_faces
from ffd_continual.scenarios.leaks import check_leaks
from ffd_continual.scenarios.manifest import Manifest, make_manifest
from ffd_continual.scenarios.pictures import write_picture
from ffd_continual.scenarios.streams import ScenarioConfig, build_scenario

ORDER: dict[str, Any] = {"data": "faces", "order": ("alpha",), "unseen": ("beta",)}


def _rows(people: int = 12) -> pd.DataFrame:
    """Real, alpha, beta and gamma of each person, split by person; rows 4 i .. 4 i + 3 are person i."""
    splits = ("train", "train", "valid", "test")
    return pd.DataFrame(
        [
            {
                "path": f"{forgery}/{at}.png", "label": int(forgery != "real"), "forgery": forgery,
                "split": splits[at % 4], "identity": f"p{at}", "source_identity": "", "video": f"v{at}",
            }
            for at in range(people)
            for forgery in ("real", "alpha", "beta", "gamma")
        ]
    )  # fmt: skip


def _manifest(rows: pd.DataFrame) -> Manifest:
    return make_manifest(rows, Path("/faces"), "faces.csv")


def test_clean_splits_pass() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scenario = build_scenario(_manifest(_rows()), ScenarioConfig(**ORDER))
    assert set(scenario.rows["stream"]) >= {"train", "valid", "test"}


@pytest.mark.parametrize(
    ("row", "column", "value", "words"),
    [
        (13, "identity", "p0", ("person 'p0' is in test here and in train", "identity")),
        (13, "source_identity", "p0", ("person 'p0' is in test here and in train", "source_identity")),
        (1, "source_identity", "p3", ("person 'p3' is in train here and in test", "source_identity")),
        (9, "identity", "p1", ("person 'p1' is in valid here and in train",)),
        (12, "video", "v0", ("video 'v0' is in test here",)),
        (12, "path", "real/0.png", ("the picture is in test here and in train",)),
    ],
)
def test_what_crosses_a_split_is_named(row: int, column: str, value: str, words: tuple[str, ...]) -> None:
    rows = _rows()
    rows.loc[row, column] = value
    manifest = _manifest(rows)
    with pytest.raises(FFDError, match="leak") as caught:
        build_scenario(manifest, ScenarioConfig(**ORDER))
    text = str(caught.value)
    for word in (*words, manifest.place(row), "scenario.leaks=allow", "ffd check faces.csv"):
        assert word in text
    with pytest.warns(UserWarning, match="figures may be too good"):
        build_scenario(manifest, ScenarioConfig(**ORDER, leaks="allow"))


def test_only_faces_of_the_scenario_count() -> None:
    rows = _rows()
    rows.loc[[3, 13], "source_identity"] = ["p3", ""]  # gamma, which is not asked for, leaks into test
    build_scenario(_manifest(rows), ScenarioConfig(**ORDER))
    rows.loc[2, "source_identity"] = "p3"  # beta of a train person: unseen forgeries are only shown in test
    build_scenario(_manifest(rows), ScenarioConfig(**ORDER))
    with pytest.raises(FFDError, match="leak"):
        build_scenario(_manifest(rows), ScenarioConfig(data="faces", order=("alpha", "beta")))


def test_few_examples_of_many_and_other_values() -> None:
    rows = _rows(40)
    late = rows["split"] == "test"
    rows.loc[late, "identity"] = [f"p{row // 4 - 3}" for row in rows.index[late]]  # each is a train person
    with pytest.raises(FFDError, match="leak") as caught:
        build_scenario(_manifest(rows), ScenarioConfig(**ORDER))
    assert len(str(caught.value).splitlines()) == 6
    assert "more" in str(caught.value)
    with pytest.raises(FFDError, match=r"scenario.leaks must be one of error, allow, not 'maybe'"):
        build_scenario(_manifest(_rows()), ScenarioConfig(**ORDER, leaks="maybe"))


def test_names_guessed_from_files_only_warn(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        for forgery in ("real", "alpha"):
            for at in range(2):
                path = tmp_path / split / forgery / f"{at:04d}.png"
                write_picture(path, np.full((8, 8, 3), at, np.uint8))
    settings: dict[str, Any] = {"data": str(tmp_path), "order": ("alpha",)}
    with pytest.warns(UserWarning, match=r"(?s)person '0000' is in .*guessed from the files' names.*identity_pattern"):
        build_scenario(open_faces(tmp_path), ScenarioConfig(**settings))
    pattern = r"^([^_/]+)"  # the same, but now the user says so
    named = open_faces(tmp_path, identity_pattern=pattern)
    with pytest.raises(FFDError, match="person '0000' is in"):
        build_scenario(named, ScenarioConfig(**settings, identity_pattern=pattern))


def test_twenty_thousand_faces_take_seconds() -> None:
    """In time that grows as the faces do: comparing each with each would take 400 million comparisons."""
    manifest = _manifest(_rows(5_000))
    began = time.process_time()
    check_leaks(manifest, manifest.table.index.to_numpy())
    assert time.process_time() - began < 3
    print(f"{time.process_time() - began:.1f} s")
