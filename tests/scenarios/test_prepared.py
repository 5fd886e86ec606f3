"""Prepared faces from a store are those that reading gives, and only new ones are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ffd_continual.scenarios import table as tables
from ffd_continual.scenarios.array_store import KEY, ArrayStore
from ffd_continual.scenarios.capture import PROFILES
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.pictures import encode_picture
from ffd_continual.scenarios.table import FaceTable, prepare_table

ARRAYS = ("pictures", "masks", "mask_known", "pairs", "pair_known", "landmarks")


@pytest.fixture
def rows(tmp_path: Path) -> pd.DataFrame:
    rng, made = np.random.default_rng(0), []
    for number in range(8):
        label = number % 2
        cells = {"path": "", "mask": "", "pair": ""}
        for name in ("path", "mask", "pair") if label else ("path",):
            cells[name] = str(tmp_path / f"{name}{number}.png")
            Path(cells[name]).write_bytes(encode_picture(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8), ".png"))
        made.append({**cells, "label": label, "manifest_row": number, "stream": "test", "profile": ""})
        made[-1] |= {"forgery": "swap", "landmarks": str([[n, number] for n in range(68)])} if label else {}
        made[-1] |= {"profile": "phone"} if number > 5 else {}
    return pd.DataFrame(made).fillna({"forgery": "real", "landmarks": ""})


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the faces that are decoded, from now on."""
    seen: list[int] = []
    call = tables._Preparer.__call__

    def counted(self: object, row: pd.Series) -> object:
        seen.append(int(row["manifest_row"]))
        return call(self, row)  # type: ignore[arg-type]

    monkeypatch.setattr(tables._Preparer, "__call__", counted)
    return seen


def _prepared(
    rows: pd.DataFrame, store: Path | None, pairs: bool = True, masks: bool = True, skip: bool = False
) -> FaceTable:
    phone = {"phone": PROFILES["phone"]}
    return prepare_table(
        rows.reset_index(drop=True), ("real", "swap"), 10, 3, phone, crop=0.8, need_mask=masks, need_pair=pairs,
        skip_unreadable=skip, store=store,
    )  # fmt: skip


@pytest.mark.parametrize(("pairs", "masks"), [(True, True), (False, True), (False, False)])
def test_a_store_gives_what_reading_gives(rows: pd.DataFrame, tmp_path: Path, pairs: bool, masks: bool) -> None:
    store = tmp_path / "store"
    _prepared(rows.iloc[[5, 0, 6]], store, pairs, masks)
    for chosen in ([1, 0, 2, 3, 4, 5, 6, 7], [7, 6, 5, 5], [2]):
        found, wanted = (_prepared(rows.iloc[chosen], where, pairs, masks) for where in (store, None))
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), name)
            assert getattr(found, name).dtype == getattr(wanted, name).dtype
        np.testing.assert_array_equal(found.slot, wanted.slot)


def test_only_new_faces_are_read(rows: pd.DataFrame, tmp_path: Path, read: list[int]) -> None:
    store = tmp_path / "store"
    _prepared(rows.iloc[:4], store)
    _prepared(rows.iloc[2:], store)
    assert sorted(read) == list(range(8)), "each once"
    read.clear()
    _prepared(rows.assign(manifest_row=range(10, 18)), store)
    assert read == [16, 17], "through a camera a face of another number looks otherwise"
    read.clear()
    _prepared(rows, store, pairs=False)
    assert len(read) == 8, "prepared in another way"
    read.clear()
    other = rows["path"][3]
    Path(other).write_bytes(encode_picture(np.zeros((22, 22, 3), np.uint8), ".png"))
    changed = _prepared(rows, store)
    assert read == [3], "its file has changed"
    assert not changed.pictures[3].any()


def test_unreadable_faces_are_named_and_not_stored(rows: pd.DataFrame, tmp_path: Path, read: list[int]) -> None:
    store, broken = tmp_path / "store", Path(rows["path"][4])
    good = broken.read_bytes()
    broken.write_bytes(b"no picture")
    with pytest.raises(FFDError, match="1 of 8 pictures cannot be read"):
        _prepared(rows, store)
    left = _prepared(rows, store, skip=True)
    assert 4 not in set(left.rows["manifest_row"])
    assert len(left.rows) == 7
    np.testing.assert_array_equal(
        left.pictures[left.slot], _prepared(rows.drop(index=4), None).pictures, "the others are as ever"
    )
    broken.write_bytes(good)
    read.clear()
    assert len(_prepared(rows, store).rows) == 8
    assert 4 in read


def test_parts_are_added_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [bytes([n]) * KEY for n in range(5)]
    store = ArrayStore(tmp_path)
    store.add(keys[:3], {"a": np.arange(6).reshape(3, 2)})
    store.add([], {})
    store.add(keys[3:], {"a": np.array([[8, 8], [9, 9]])})
    again = ArrayStore(tmp_path)
    for one in (store, again):
        np.testing.assert_array_equal(one.rows("a", [keys[4], keys[0], keys[4]]), [[9, 9], [0, 1], [9, 9]])
        assert keys[2] in one
    assert one.rows("a", []).shape == (0, 2)

    def full(path: object, values: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        store.add([b"x" * KEY], {"a": np.zeros((1, 2))})
    assert b"x" * KEY not in store
    assert len(list(tmp_path.iterdir())) == 2, "nothing half written stays"


def test_a_face_that_came_several_times_lies_there_once(rows: pd.DataFrame, tmp_path: Path, read: list[int]) -> None:
    again = rows.assign(manifest_row=range(10, 18))
    other = rows.iloc[[1]].assign(manifest_row=20, mask=rows["mask"][3])  # the same picture, forged elsewhere
    whole = pd.concat([rows, again, other], ignore_index=True)
    found, wanted = _prepared(whole, tmp_path / "store"), _prepared(whole, None)
    assert len(found.pictures) == 8 + 2 + 1, "two through a camera, which draws by their number, and the other mask"
    assert len(wanted.pictures) == 17
    np.testing.assert_array_equal(found.slot[8:14], found.slot[:6])
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name)[found.slot], getattr(wanted, name)[wanted.slot], name)
