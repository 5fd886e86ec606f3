"""The prepared face table: the same bytes from pictures and from the cache, and what cannot be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from ffd_continual.scenarios.benchmark import make_benchmark
from ffd_continual.scenarios.capture import PROFILES
from ffd_continual.scenarios.dataset import make_sources, plain_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import read_manifest
from ffd_continual.scenarios.streams import Scenario, ScenarioConfig, build_scenario
from ffd_continual.scenarios.table import FaceTable, prepare_table
from ffd_continual.scenarios.views import ViewConfig


@pytest.fixture
def faces(tiny_faces: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(tiny_faces.parent, tmp_path / "faces")
    return tmp_path / "faces" / "manifest.csv"


def _scenario(manifest: Path, **settings: Any) -> Scenario:
    config = ScenarioConfig(data=str(manifest), order=("alpha", "beta"), unseen=("gamma",), **settings)
    return build_scenario(read_manifest(manifest), config)


def _table(scenario: Scenario, size: int = 32, seed: int = 0, **settings: Any) -> FaceTable:
    needs = {"need_mask": True, "need_pair": True, **settings}
    return prepare_table(scenario.rows, scenario.names, size, seed, dict(scenario.profiles), **needs)


ARRAYS = ("pictures", "masks", "mask_known", "pairs", "pair_known", "landmarks", "slot")


def _same(a: FaceTable, b: FaceTable) -> bool:
    return all(np.asarray(getattr(a, n)).tobytes() == np.asarray(getattr(b, n)).tobytes() for n in ARRAYS)


def test_rows_of_one_portrait_share_a_picture(faces: Path) -> None:
    scenario = _scenario(faces)
    table = _table(scenario)
    assert len(table.rows) == len(scenario.rows) == len(table.slot)
    assert len(table.pictures) == scenario.rows["manifest_row"].nunique()
    for row in (0, 40, len(table.rows) - 1):
        path = table.rows["path"].iloc[row]
        picture = cv2.imread(path)
        assert picture is not None
        wanted = cv2.resize(picture[..., ::-1], (32, 32), interpolation=cv2.INTER_AREA)
        assert (table.pictures[table.slot[row]] == wanted).all()
    assert table.size == 32
    assert table.names[table.ids("forgery")[-1]] == table.rows["forgery"].iloc[-1]


def test_masks_pairs_and_landmarks_come_to_the_new_size(faces: Path) -> None:
    table = _table(_scenario(faces))
    row = int(np.flatnonzero(table.rows["forgery"] == "alpha")[0])
    slot = table.slot[row]
    mask = cv2.imread(table.rows["mask"].iloc[row], cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    assert set(np.unique(table.masks[slot])) == {0, 255}
    assert abs((table.masks[slot] > 0).mean() - (mask > 0).mean()) < 0.03
    assert table.mask_known[slot]
    assert table.pair_known[slot]
    real = int(
        np.flatnonzero(
            (table.rows["forgery"] == "real") & (table.rows["identity"] == table.rows["identity"].iloc[row])
        )[0]
    )
    assert (table.pairs[slot] == table.pictures[table.slot[real]]).all()
    assert table.mask_known[table.slot[real]]  # a real face's mask is known: empty
    assert not table.masks[table.slot[real]].any()
    points = np.array(json.loads(table.rows["landmarks"].iloc[row]))
    assert np.allclose(table.landmarks[slot], points * 32 / 48, atol=1e-4)


def test_the_cache_gives_the_same_table(faces: Path, tmp_path: Path) -> None:
    scenario = _scenario(faces)
    fresh, first = _table(scenario), _table(scenario, cache=tmp_path / "cache")
    again = _table(scenario, cache=tmp_path / "cache")
    assert isinstance(again.pictures, np.memmap)
    assert _same(fresh, first)
    assert _same(fresh, again)
    assert _same(fresh, _table(scenario, threads=3))
    assert [p.name[:6] for p in (tmp_path / "cache").iterdir()] == ["faces-"]


def test_the_cache_notices_every_change(faces: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def entries() -> int:
        return len(list(cache.iterdir()))

    _table(_scenario(faces), cache=cache)
    _table(_scenario(faces), cache=cache, size=40)
    assert entries() == 2
    picture = faces.parent / "alpha" / "p000.png"
    cv2.imwrite(str(picture), 255 - np.asarray(cv2.imread(str(picture)), np.uint8))
    changed = _table(_scenario(faces), cache=cache)
    assert entries() == 3
    assert _same(changed, _table(_scenario(faces)))
    mask = faces.parent / "masks" / "alpha" / "p000.png"
    cv2.imwrite(str(mask), np.pad(255 - np.asarray(cv2.imread(str(mask), 0), np.uint8), ((0, 2), (0, 0))))
    assert _same(_table(_scenario(faces), cache=cache), _table(_scenario(faces)))
    table = pd.read_csv(faces).fillna("")
    table["landmarks"] = [json.dumps([[x + 1, y] for x, y in json.loads(text)]) for text in table["landmarks"]]
    table.to_csv(faces, index=False)
    assert _same(_table(_scenario(faces), cache=cache), _table(_scenario(faces)))
    table.iloc[::-1].to_csv(faces, index=False)
    assert _same(_table(_scenario(faces), cache=cache), _table(_scenario(faces)))


def test_a_cache_that_cannot_be_written_ends_nothing(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="cache"):
        (tmp_path / "cache" / "x").mkdir()
    assert _same(_table(_scenario(faces), cache=tmp_path / "cache"), _table(_scenario(faces)))


def test_cameras_are_a_pure_function_of_seed_and_row(faces: Path) -> None:
    noisy = next(name for name, p in sorted(PROFILES.items()) if p.noise > 0)
    scenario = _scenario(faces, profiles={"alpha": noisy})
    one, two, other = _table(scenario), _table(scenario), _table(scenario, seed=1)
    assert _same(one, two)
    assert not _same(one, other)
    rows = one.rows
    real = rows[(rows["label"] == 0) & (rows["identity"] == "p000") & (rows["stream"] == "train")]
    through, plain = (int(real.index[real["experience"] == n][0]) for n in ("alpha", "beta"))
    assert one.slot[through] != one.slot[plain]
    assert (one.pictures[one.slot[through]] != one.pictures[one.slot[plain]]).any()


def test_unreadable_pictures_are_listed_or_skipped(faces: Path, tmp_path: Path) -> None:
    broken = faces.parent / "alpha" / "p003.png"
    broken.write_bytes(broken.read_bytes()[:60])
    missing = faces.parent / "beta" / "p001.png"
    missing.unlink()
    scenario = _scenario(faces)
    with pytest.raises(FFDError, match="2 of .* pictures cannot be read") as caught:
        _table(scenario, cache=tmp_path / "cache")
    assert "p003.png" in str(caught.value)
    assert "p001.png" in str(caught.value)
    assert "unreadable=skip" in str(caught.value)
    reported: list[pd.DataFrame] = []
    table = _table(scenario, skip_unreadable=True, report_skipped=reported.append, cache=tmp_path / "cache")
    assert sorted(Path(p).name for p in reported[0]["path"]) == ["p001.png", "p003.png"]
    assert len(table.rows) == len(table.slot) == len(scenario.rows) - 2
    assert not table.rows["path"].isin([str(broken), str(missing)]).any()
    whole = table.pictures[table.slot].reshape(len(table.rows), -1).max(1)
    assert (whole > 0).all()


def test_needs_are_checked_before_training(faces: Path) -> None:
    scenario = _scenario(faces)
    table = _table(scenario)

    def sources(needs: set[str], wants: set[str] = frozenset()) -> frozenset[str]:  # type: ignore[assignment]
        return make_sources(table, scenario, ViewConfig(), frozenset(needs), frozenset(wants), 0).needs

    assert sources({"mask", "pair"}, {"pseudo", "other"}) == {"mask", "pair", "pseudo"}
    with pytest.raises(FFDError, match="several frames of a video"):
        sources({"other"})
    with pytest.raises(FFDError, match="which no batch holds"):
        sources({"thermal"})
    bare = _table(scenario, need_mask=False, need_pair=False)
    for need, column in (("mask", "column mask"), ("pair", "column pair")):
        with pytest.raises(FFDError, match=column):
            make_sources(bare, scenario, ViewConfig(), frozenset({need}), frozenset(), 0)


def test_the_benchmark_is_avalanche_s(faces: Path) -> None:
    scenario = _scenario(faces)
    sources = make_sources(_table(scenario), scenario, ViewConfig(), frozenset(), frozenset(), 0)
    benchmark = make_benchmark(scenario, sources)
    assert [len(s) for s in (benchmark.train_stream, benchmark.valid_stream, benchmark.test_stream)] == [2, 2, 2]
    assert len(benchmark.unseen_stream) == 1
    rows = scenario.index("test", "beta")
    data = benchmark.test_stream[1].dataset
    assert len(data) == len(rows)
    image, target, *_, task = data[3]
    assert int(task) == 0
    assert int(target) == int(sources.forgery[rows[3]] > 0)
    assert (image == plain_batch(sources, [int(rows[3])]).image[0]).all()
    assert set(benchmark.train_stream[0].dataset.targets_task_labels) == {0}
