"""Tar shards: written from finished crops, stopped and gone on with, and read wherever a picture is read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffd_continual.scenarios.check import check_manifest
from ffd_continual.scenarios.datasets.listing import Item, Listing
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import Manifest, read_manifest
from ffd_continual.scenarios.pictures import PictureError, encode_picture, read_mark, read_picture, read_size
from ffd_continual.scenarios.prepare.prepare import prepare_listing
from ffd_continual.scenarios.prepare.settings import PrepareConfig
from ffd_continual.scenarios.shard_paths import CarefulInfo, file_exists, file_sha256, shard_member
from ffd_continual.scenarios.table import FaceTable, prepare_table

Pictures = list[np.ndarray[Any, Any]]
CONFIG = PrepareConfig(frames=3, size=64, masks="write", form="tar")
LIMIT = 22_000  # a handful of faces


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory,
    studio_people: Pictures,
    panned: Callable[..., Pictures],
    video_writer: Callable[..., Path],
) -> tuple[Path, Listing]:
    root = tmp_path_factory.mktemp("shards") / "root"
    items = []
    for number in range(2):
        video_writer(root / f"real/{number}.mp4", panned(studio_people[number]))
        video_writer(root / f"swap/{number}.mp4", panned(studio_people[number], forged=True))
        items.append(Item(f"real/{number}.mp4", 0, "real", f"real/{number}", split="train"))
        items.append(Item(f"swap/{number}.mp4", 1, "swap", f"swap/{number}", split="train", pair=f"real/{number}"))
    return root, Listing(tuple(items))


@pytest.fixture(scope="module")
def both(data: tuple[Path, Listing], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same crops as a folder and as shards."""
    base = tmp_path_factory.mktemp("both")
    prepare_listing(data[1], data[0], base / "folder", "mini", replace(CONFIG, form="jpg"), progress=False)
    prepare_listing(data[1], data[0], base / "shards", "mini", CONFIG, shard_bytes=LIMIT, progress=False)
    return base / "folder", base / "shards"


def files(out: Path) -> dict[str, str]:
    found = [path for path in out.rglob("*") if path.is_file() and path.name != "prepare.jsonl"]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def table_of(manifest: Manifest) -> FaceTable:
    rows = manifest.table.assign(manifest_row=range(len(manifest)), stream="train")
    for name in ("path", "pair", "mask"):
        rows[name] = [str(manifest.absolute(cell)) if cell else "" for cell in rows[name]]
    return prepare_table(rows, ("real", "swap"), 48, 0, {}, need_mask=True, need_pair=True)


def test_a_run_sees_the_same_pixels_from_shards_as_from_a_folder(both: tuple[Path, Path]) -> None:
    loose, packed = (read_manifest(out / "manifest.parquet") for out in both)
    assert packed.table["path"].str.startswith("shards/0000").all()
    assert (packed.table["mask"] != "").sum() == (packed.table["pair"] != "").sum() == 6
    first, second = table_of(loose), table_of(packed)
    for name in ("pictures", "masks", "pairs", "landmarks", "mask_known", "pair_known"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert first.pictures.std() > 20
    assert [fault for fault in check_manifest(packed, progress=False) if not fault.warning] == []
    assert read_size(packed.absolute(packed.table["path"][0])) == (64, 64)
    assert read_mark(packed.absolute(packed.table["path"][3])) == "swap"


def test_shards_follow_the_convention_and_their_limit(both: tuple[Path, Path]) -> None:
    assert not (both[1] / "faces").exists()
    assert not (both[1] / "masks").exists()
    shards = sorted((both[1] / "shards").iterdir())
    assert [path.name for path in shards] == [f"{number:06d}.tar" for number in range(len(shards))]
    assert len(shards) > 2
    table = read_manifest(both[1] / "manifest.parquet").table
    keys: list[str] = []
    for shard in shards:
        assert shard.stat().st_size <= LIMIT + tarfile.RECORDSIZE
        with tarfile.open(shard) as archive:
            members = archive.getmembers()
            assert {(one.mtime, one.uid, one.gid, one.uname) for one in members} == {(0, 0, 0, "")}
            for one in members:
                folder, name = os.path.split(one.name)
                key, kind = name.split(".", 1)
                if not keys or keys[-1] != f"{folder}/{key}":
                    assert kind == "jpg"
                    keys.append(f"{folder}/{key}")
                if kind == "json":
                    file = archive.extractfile(one)
                    assert file is not None
                    told = json.load(file)
                    row = table.iloc[len(keys) - 1]
                    assert (told["label"], told["forgery"], told["frame"]) == (
                        row["label"],
                        row["forgery"],
                        row["frame"],
                    )
                    assert "path" not in told
    assert len(keys) == len(set(keys)) == len(table)  # what belongs together stands together


def test_packing_goes_on_after_a_full_disk_with_the_same_bytes(
    data: tuple[Path, Listing], both: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    usual = os.replace
    written: list[str] = []

    def full(source: Any, target: Any) -> None:
        if str(target).endswith(".tar"):
            if written and written[-1] != "again":
                raise OSError(28, "No space left on device")
            written.append(str(target))
        usual(source, target)

    monkeypatch.setattr(os, "replace", full)
    for _ in range(2):
        with pytest.raises(FFDError, match="the disk is full"):
            prepare_listing(data[1], data[0], out, "mini", CONFIG, shard_bytes=LIMIT, progress=False)
        assert not list(out.glob("shards/.*"))
        written.append("again")
    assert len(list(out.glob("shards/*.tar"))) == 2
    monkeypatch.setattr(os, "replace", usual)
    made = prepare_listing(data[1], data[0], out, "mini", CONFIG, shard_bytes=LIMIT, progress=False)
    assert made.made == 0
    assert files(out) == files(both[1])
    again = prepare_listing(data[1], data[0], out, "mini", CONFIG, shard_bytes=LIMIT, progress=False)
    assert again.made == 0
    assert files(out) == files(both[1])
    with pytest.raises(FFDError, match="holds other faces than wanted now"):
        prepare_listing(data[1], data[0], out, "mini", CONFIG, shard_bytes=2 * LIMIT, progress=False)
    (out / "shards/000001.tar").unlink()
    with pytest.raises(FFDError, match=r"shard .*000001.tar is gone"):
        prepare_listing(data[1], data[0], out, "mini", CONFIG, shard_bytes=LIMIT, progress=False)


def _shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_paths_into_shards(tmp_path: Path) -> None:
    picture = np.full((20, 24, 3), 77, np.uint8)
    shard = _shard(
        tmp_path / "a.tar", {"clip/1.png": encode_picture(picture, ".png"), "../up.png": b"no", "empty.png": b""}
    )
    assert shard_member(shard / "clip/1.png") == (str(shard), "clip/1.png")
    assert shard_member(tmp_path / "b.tar/clip/1.png") is None
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "folder.tar/1.png").write_bytes(encode_picture(picture, ".png"))
    for path in (shard / "clip/1.png", tmp_path / "folder.tar/1.png"):
        assert np.array_equal(read_picture(path), picture)
        assert file_exists(path)
        assert file_sha256(path) == hashlib.sha256(encode_picture(picture, ".png")).hexdigest()
    for name, cause in (("none.png", "holds no such file"), ("empty.png", "0 bytes"), ("../up.png", "is no JPEG")):
        with pytest.raises(PictureError, match=cause):
            read_picture(shard / name)
    assert not file_exists(shard / "none.png")
    assert not file_exists(shard / "clip")


def test_a_shard_that_changes_is_read_anew(tmp_path: Path) -> None:
    for shade in (10, 200):
        shard = _shard(
            tmp_path / "a.tar", {"1.png": encode_picture(np.full((9, 9 + shade, 3), shade, np.uint8), ".png")}
        )
        os.utime(shard, ns=(shade, shade))
        assert int(read_picture(shard / "1.png").mean()) == shade


def test_broken_shards_name_themselves(tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_bytes(b"no archive at all" * 100)
    with pytest.raises(PictureError, match=r"the shard .*no.tar cannot be read"):
        read_picture(tmp_path / "no.tar/1.png")
    assert not file_exists(tmp_path / "no.tar/1.png")
    info = tarfile.TarInfo("link.png")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        archive.addfile(info)
    with pytest.raises(PictureError, match="holds no such file"):
        read_picture(tmp_path / "link.tar/link.png")
    with tarfile.open(tmp_path / "bomb.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("x" * 2_000_000))
    with pytest.raises(PictureError, match="a header of 2000"):
        read_picture(tmp_path / "bomb.tar/1.png")
    with pytest.raises(tarfile.TarError), tarfile.open(tmp_path / "bomb.tar", tarinfo=CarefulInfo) as archive:
        archive.getmembers()
