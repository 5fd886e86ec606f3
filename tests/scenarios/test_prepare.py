"""Whole items and whole data sets, from real video files to the manifest, in one process."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from ffd_continual.scenarios.check import check_manifest
from ffd_continual.scenarios.datasets.listing import Item, Kind, Listing
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import read_manifest
from ffd_continual.scenarios.pictures import read_mark, read_mask, read_picture, write_picture
from ffd_continual.scenarios.prepare import prepare as module
from ffd_continual.scenarios.prepare.item import prepare_item
from ffd_continual.scenarios.prepare.prepare import Prepared, prepare_listing
from ffd_continual.scenarios.prepare.settings import PrepareConfig
from ffd_continual.scenarios.traces import difference_mask

Pictures = list[np.ndarray[Any, Any]]
Pan = Callable[..., Pictures]
Writer = Callable[..., Path]
SMALL = PrepareConfig(frames=4, size=64)


def item(path: str, forgery: str = "real", **more: Any) -> Item:
    """Named after its file."""
    return Item(path, int(forgery != "real"), forgery, path.rsplit(".", 1)[0], **more)


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory, studio_people: Pictures, panned: Pan, video_writer: Writer
) -> tuple[Path, Listing]:
    """Two people on video and their forgeries, a mask video, two files that are none, and one that is missing."""
    root = tmp_path_factory.mktemp("prepare") / "root"
    items = []
    for number in range(2):
        video_writer(root / f"real/{number}.mp4", panned(studio_people[number]))
        video_writer(root / f"swap/{number}.mp4", panned(studio_people[number], forged=True))
        items.append(item(f"real/{number}.mp4", identity=f"p{number}", compression="c23", date="2020"))
        items.append(item(f"swap/{number}.mp4", "swap", identity=f"p{number}", pair=f"real/{number}"))
    masks = [np.zeros_like(picture) for picture in panned(studio_people[0])]
    for at, mask in enumerate(masks):
        mask[26 + 70 : 26 + 95, 30 + at * 4 + 50 : 30 + at * 4 + 80] = 255
    video_writer(root / "masks/0.mp4", masks)
    items[1] = replace(items[1], mask="masks/0.mp4", extra={"quality": "good"})
    (root / "real/broken.mp4").write_bytes(b"nothing")
    video_writer(root / "real/wall.mp4", [np.full((96, 128, 3), 90, np.uint8)] * 6)
    items += [item("real/broken.mp4"), item("real/wall.mp4"), item("real/../../gone.mp4"), item("real/absent.mp4")]
    return root, Listing(tuple(items), ("real/7.mp4",), ("a remark",))


@pytest.fixture(scope="module")
def done(data: tuple[Path, Listing], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prepared]:
    out = tmp_path_factory.mktemp("done") / "out"
    return out, prepare_listing(data[1], data[0], out, "mini", SMALL, progress=False)


def fingerprint(out: Path) -> dict[str, str]:
    """Every file but the journal, whose order is that of completion."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "prepare.jsonl"]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_manifest_tells_everything(done: tuple[Path, Prepared]) -> None:
    out, prepared = done
    manifest = read_manifest(out / "manifest.parquet")
    table = manifest.table
    assert len(table) == 16
    assert table["forgery"].tolist() == ["real"] * 4 + ["swap"] * 4 + ["real"] * 4 + ["swap"] * 4
    first = table.iloc[0]
    assert first["path"] == "faces/real/0/000001.jpg"
    assert (first["dataset"], first["video"], first["identity"]) == ("mini", "real/0", "p0")
    assert (first["compression"], first["date"], first["track"]) == ("c23", "2020", "0")
    assert table["frame"].tolist() == [1, 4, 7, 10] * 4  # over the whole of twelve frames
    assert table["quality"].tolist() == [""] * 4 + ["good"] * 4 + [""] * 8
    forged = table[table["label"] == 1]
    assert forged["pair"].tolist() == table.loc[table["label"] == 0, "path"].tolist()
    for row in range(len(table)):
        points = manifest.landmarks(row)
        assert points is not None
        assert points.shape == (68, 2)
        assert ((points > 0) & (points < 64)).all()
    faults = [fault for fault in check_manifest(manifest, progress=False) if not fault.warning]
    assert faults == []
    assert prepared.missing == ("real/7.mp4",)
    assert (out / "missing.csv").read_text() == "path\nreal/7.mp4\n"
    assert prepared.notes[0] == "a remark"
    assert read_mark(out / forged["path"].iloc[0]) == "swap"
    assert read_mark(out / first["path"]) is None


def test_what_failed_is_listed_with_its_cause(done: tuple[Path, Prepared]) -> None:
    out, prepared = done
    told = pd.read_csv(out / "failed.csv")
    causes = dict(zip(told["path"], told["cause"], strict=True))
    assert list(causes) == ["real/broken.mp4", "real/wall.mp4", "real/../../gone.mp4", "real/absent.mp4"]
    assert "no readable video" in causes["real/broken.mp4"] or "cannot be opened" in causes["real/broken.mp4"]
    assert causes["real/wall.mp4"] == "no face was found"
    assert "leads out" in causes["real/../../gone.mp4"]
    assert causes["real/absent.mp4"] == "there is no such file"
    assert told["kept"].tolist() == [0] * 4
    assert len(prepared.failed) == 4


def test_a_crop_shows_the_face_and_moves_with_it(done: tuple[Path, Prepared]) -> None:
    """The face moves by 36 px over the clip; in its crops the landmarks stay put."""
    manifest = read_manifest(done[0] / "manifest.parquet")
    eyes = [np.asarray(manifest.landmarks(row))[36:48].mean(0) for row in range(4)]
    assert np.ptp(np.stack(eyes), axis=0).max() < 5
    crops = [read_picture(done[0] / path).astype(int) for path in manifest.table["path"][:4]]
    assert np.abs(crops[0] - crops[3])[16:48, 16:48].mean() < 14
    pair = read_picture(done[0] / manifest.table["pair"][4]).astype(int)
    forged = read_picture(done[0] / manifest.table["path"][4]).astype(int)
    changed = np.abs(forged - pair).max(axis=2) > 40
    assert 0.01 < changed.mean() < 0.25  # the patch, and nothing else: both crops lie alike


def test_masks_come_from_the_data_set_or_from_the_pair(
    data: tuple[Path, Listing], done: tuple[Path, Prepared], tmp_path: Path
) -> None:
    table = read_manifest(done[0] / "manifest.parquet").table
    assert (table["mask"] != "").tolist() == [False] * 4 + [True] * 4 + [False] * 8
    mask = read_mask(done[0] / table["mask"][4]) > 0
    forged, real = (read_picture(done[0] / table[name][4]).astype(int) for name in ("path", "pair"))
    seen = np.abs(forged - real).max(axis=2) > 60
    assert (mask & seen).sum() / (mask | seen).sum() > 0.75
    out = tmp_path / "out"
    prepare_listing(data[1], data[0], out, "mini", replace(SMALL, masks="write"), progress=False)
    table = read_manifest(out / "manifest.parquet").table
    assert (table["mask"] != "").sum() == 8
    written = read_mask(out / table["mask"][12])
    again = difference_mask(read_picture(out / table["path"][12]), read_picture(out / table["pair"][12]))
    assert np.array_equal(written, again)


def test_any_number_of_processes_gives_the_same_bytes(
    data: tuple[Path, Listing], done: tuple[Path, Prepared], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    made = prepare_listing(data[1], data[0], out, "mini", SMALL, workers=2, progress=False)
    assert made.made == 8
    assert fingerprint(out) == fingerprint(done[0])


def test_what_is_finished_is_not_made_again(
    data: tuple[Path, Listing], done: tuple[Path, Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after each item in turn; then a crop is lost, and a file changes."""
    root, listing = data
    out = tmp_path / "out"
    usual = prepare_item
    worked: list[str] = []

    def once(one: Item, *rest: Any) -> Any:
        if worked and worked[-1] != "stop":
            raise KeyboardInterrupt
        worked.append(one.video)
        return usual(one, *rest)

    monkeypatch.setattr(module, "prepare_item", once)
    for _ in range(7):
        with pytest.raises(KeyboardInterrupt):
            prepare_listing(listing, root, out, "mini", SMALL, progress=False)
        worked.append("stop")
    assert prepare_listing(listing, root, out, "mini", SMALL, progress=False).made == 1
    assert sorted(name for name in worked if name != "stop") == sorted(one.video for one in listing.items)
    assert fingerprint(out) == fingerprint(done[0])
    monkeypatch.setattr(module, "prepare_item", usual)
    assert prepare_listing(listing, root, out, "mini", SMALL, progress=False).made == 0
    (out / "faces/swap/1/000004.jpg").unlink()
    assert prepare_listing(listing, root, out, "mini", SMALL, progress=False).made == 1
    assert fingerprint(out) == fingerprint(done[0])


def test_a_mended_file_and_all_that_hangs_on_it_is_made_again(
    tmp_path: Path, studio_people: Pictures, panned: Pan, video_writer: Writer
) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    video_writer(root / "swap.mp4", panned(studio_people[0], forged=True))
    (root / "real.mp4").write_bytes(b"")
    listing = Listing((item("swap.mp4", "swap", pair="real"), item("real.mp4")))
    first = prepare_listing(listing, root, out, "mini", SMALL, progress=False)
    assert first.table["pair"].tolist() == [""] * 4  # the real one is of no use: detected in the forgery itself
    assert first.failed[0][:2] == ("real.mp4", "the file is empty (0 bytes)")
    video_writer(root / "real.mp4", panned(studio_people[0]))
    second = prepare_listing(listing, root, out, "mini", SMALL, progress=False)
    assert second.made == 2
    assert second.failed == ()
    assert second.table["pair"].tolist()[:4] == [f"faces/real/{at:06d}.jpg" for at in (1, 4, 7, 10)]


def test_boxes_are_rescaled_where_the_forgery_has_another_size(
    tmp_path: Path, studio_people: Pictures, panned: Pan, video_writer: Writer
) -> None:
    root = tmp_path / "root"
    video_writer(root / "real.mp4", panned(studio_people[0]))
    half = [cv2.resize(one, (120, 90), interpolation=cv2.INTER_AREA) for one in panned(studio_people[0], forged=True)]
    video_writer(root / "half.mp4", half)
    other = [cv2.resize(one, (240, 100), interpolation=cv2.INTER_AREA) for one in panned(studio_people[0], forged=True)]
    video_writer(root / "other.mp4", other)
    items = (item("real.mp4"), item("half.mp4", "swap", pair="real"), item("other.mp4", "swap", pair="real"))
    made = prepare_listing(Listing(items), root, tmp_path / "out", "mini", SMALL, progress=False)
    table = made.table
    rows = table[table["video"] == "half"]
    assert (rows["pair"] != "").all()
    pair = read_picture(tmp_path / "out" / rows["pair"].iloc[0]).astype(int)
    forged = read_picture(tmp_path / "out" / rows["path"].iloc[0]).astype(int)
    assert np.median(np.abs(pair - forged)) < 12
    assert "another shape" in {path: cause for path, cause, _ in made.failed}["other.mp4"]
    assert (table.loc[table["video"] == "other", "pair"] == "").all()


def test_several_faces_in_a_frame_are_several_rows(
    tmp_path: Path, studio_people: Pictures, panned: Pan, video_writer: Writer
) -> None:
    root = tmp_path / "root"
    small = [cv2.resize(one, (120, 90), interpolation=cv2.INTER_AREA) for one in panned(studio_people[1])]
    pictures = []
    for large, little in zip(panned(studio_people[0], size=(180, 320)), small, strict=True):
        picture = large.copy()
        picture[40:130, 200:320] = little
        pictures.append(picture)
    video_writer(root / "two.mp4", pictures)
    video_writer(root / "two_swap.mp4", pictures)
    items = Listing((item("two.mp4"), item("two_swap.mp4", "swap", pair="two")))
    one = prepare_listing(items, root, tmp_path / "one", "mini", SMALL, progress=False).table
    assert one["frame"].tolist() == [1, 4, 7, 10] * 2
    two = prepare_listing(items, root, tmp_path / "two", "mini", replace(SMALL, faces=3), progress=False).table
    assert two["frame"].tolist() == [1, 1, 4, 4, 7, 7, 10, 10] * 2
    assert two["track"].tolist() == ["0", "1"] * 8
    assert two["path"].tolist()[:2] == ["faces/two/000001.jpg", "faces/two/000001+1.jpg"]
    assert two["pair"].tolist()[8:10] == two["path"].tolist()[:2]
    assert np.array_equal(
        read_picture(tmp_path / "one" / one["path"][0]), read_picture(tmp_path / "two" / two["path"][0])
    )


def test_a_person_whom_the_masks_never_touch_is_not_called_forged(
    tmp_path: Path, studio_people: Pictures, panned: Pan, video_writer: Writer
) -> None:
    root = tmp_path / "root"
    small = cv2.resize(studio_people[1], (96, 96), interpolation=cv2.INTER_AREA)
    pictures, masks = [], []
    for large in panned(studio_people[0], size=(180, 320)):
        picture = large.copy()
        picture[50:146, 216:312] = small
        mask = np.zeros_like(picture)
        mask[90:120, 250:280] = 255  # the smaller face is forged
        pictures.append(picture)
        masks.append(mask)
    for name, shown in (("real", pictures), ("swap", pictures), ("mask", masks)):
        video_writer(root / f"{name}.mp4", shown)
    items = (item("real.mp4"), item("swap.mp4", "swap", pair="real", mask="mask.mp4"))
    out = tmp_path / "out"
    made = prepare_listing(Listing(items), root, out, "mini", replace(SMALL, faces=2), progress=False)
    forged = made.table[made.table["label"] == 1]
    assert forged["track"].tolist() == ["1"] * 4
    assert (forged["mask"] != "").all()
    assert made.failed == (("swap.mp4", "face 0 left out: the masks say that it is not forged", 4),)
    assert sorted(path.name for path in (out / "faces/swap").iterdir()) == sorted(
        path.rsplit("/", 1)[1] for path in forged["path"]
    )
    (out / "faces/swap/.0123456789ab.part").touch()  # what a kill may leave
    assert prepare_listing(Listing(items), root, out, "mini", replace(SMALL, faces=2), progress=False).made == 0
    assert not (out / "faces/swap/.0123456789ab.part").exists()


@pytest.mark.parametrize("kind", ["frames", "archive", "picture"])
def test_pictures_folders_and_archives(tmp_path: Path, studio_people: Pictures, panned: Pan, kind: Kind) -> None:
    root = tmp_path / "root"
    for forgery in ("real", "swap"):
        for at, picture in enumerate(panned(studio_people[0], forged=forgery == "swap")[:3]):
            write_picture(root / forgery / f"f{at * 5}.png", picture)
        with tarfile.open(root / f"{forgery}.tar.gz", "w:gz") as archive:
            archive.add(root / forgery, forgery)
    (root / "real/f99.png").write_bytes(b"")
    path = {"frames": "{}", "archive": "{}.tar.gz", "picture": "{}/f5.png"}[kind]
    real = Item(path.format("real"), 0, "real", "a\nodd name", kind)
    swap = Item(path.format("swap"), 1, "swap", "b", kind, pair="a\nodd name")
    made = prepare_listing(Listing((swap, real)), root, tmp_path / "out", "mini", SMALL, progress=False)
    table = made.table
    forged = table[table["label"] == 1]
    assert (forged["pair"] != "").all()
    if kind == "picture":
        assert len(table) == 2
        assert table["video"].tolist() == ["", ""]
        assert table["frame"].isna().all()
    else:
        assert forged["frame"].tolist() == [0, 5, 10]
        assert table.loc[table["label"] == 0, "video"].unique().tolist() == ["a\nodd name"]
    assert [path for path, _, _ in made.failed] == (["real/f99.png"] if kind == "frames" else [])
    assert all("\n" not in path for path in table["path"])
    assert [f for f in check_manifest(read_manifest(made.manifest), progress=False) if not f.warning] == []


def test_crops_made_by_others_are_taken_whole(tmp_path: Path, studio_people: Pictures) -> None:
    root = tmp_path / "root"
    write_picture(root / "real/1.png", studio_people[0])
    write_picture(root / "swap/1.png", studio_people[0][:100])
    items = (
        Item("real/1.png", 0, "real", "r", "picture", cropped=True),
        Item("swap/1.png", 1, "swap", "s", "picture", cropped=True, pair="r"),
    )
    config = replace(SMALL, size=128, form="png")
    table = prepare_listing(Listing(items), root, tmp_path / "out", "mini", config, progress=False).table
    assert np.array_equal(read_picture(tmp_path / "out" / table["path"][0]), studio_people[0])
    wide = read_picture(tmp_path / "out" / table["path"][1])
    assert np.array_equal(wide[14:114], studio_people[0][:100])
    assert table["pair"].tolist() == ["", "pictures/r.png"]


@pytest.mark.parametrize("form", ["jpg", "png", "webp"])
def test_every_form_holds_the_same_face_and_says_what_is_forged(
    tmp_path: Path, studio_people: Pictures, form: str
) -> None:
    root = tmp_path / "root"
    write_picture(root / "a.png", studio_people[0])
    items = Listing((Item("a.png", 1, "swap", "a", "picture", cropped=True),))
    config = replace(SMALL, size=128, form=form)
    made = prepare_listing(items, root, tmp_path / "out", "mini", config, progress=False)
    path = tmp_path / "out" / made.table["path"][0]
    assert path.suffix == f".{form}"
    off = np.abs(read_picture(path).astype(int) - studio_people[0]).mean()
    assert off == 0 if form == "png" else 0 < off < 4
    assert read_mark(path) == "swap"


def test_hostile_pictures_are_refused_and_the_rest_goes_on(
    tmp_path: Path, studio_people: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )
    (root / "bomb.png").write_bytes(bomb)
    write_picture(root / "strip.png", np.zeros((20, 4000, 3), np.uint8))
    write_picture(root / "good.png", np.pad(studio_people[0], ((20, 20), (30, 30), (0, 0)), mode="edge"))
    write_picture(tmp_path / "outside.png", studio_people[0])
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    names = ("bomb.png", "strip.png", "good.png", "link.png")
    listing = Listing(tuple(item(name, kind="picture") for name in names))
    before = fingerprint(tmp_path)
    made = prepare_listing(listing, root, tmp_path / "out", "mini", SMALL, progress=False)
    causes = {path: cause for path, cause, _ in made.failed}
    assert "megapixels" in causes["bomb.png"]
    assert "no shape of a face picture" in causes["strip.png"]
    assert "a link out of the data set's folder" in causes["link.png"]
    assert len(made.table) == 1
    after = fingerprint(tmp_path)
    assert {name for name in after if name not in before} == {name for name in after if name.startswith("out/")}
    assert before == {name: after[name] for name in before}


def test_a_full_disk_stops_cleanly_and_the_same_call_goes_on(
    data: tuple[Path, Listing], done: tuple[Path, Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, listing = data
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, hard))  # the journal outgrows it within a few items
    try:
        with pytest.raises(FFDError, match="the disk is full"):
            prepare_listing(listing, root, out, "mini", SMALL, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 0 < (out / "prepare.jsonl").stat().st_size <= 12_000
    assert not (out / "manifest.parquet").exists()
    made = prepare_listing(listing, root, out, "mini", SMALL, progress=False)
    assert 0 < made.made < 8
    assert fingerprint(out) == fingerprint(done[0])


def test_listings_that_cannot_become_a_manifest_fail_before_any_work(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    bad = Item("a.mp4", 1, "real", "a", split="training", date="yesterday", extra={"label": "x"})
    with pytest.raises(FFDError) as caught:
        prepare_listing(Listing((bad, bad)), root, tmp_path / "out", "mini", SMALL)
    text = str(caught.value)
    for words in ("label 1 and forgery 'real'", "'training'", "'yesterday'", "extra column 'label'"):
        assert words in text
    assert not (tmp_path / "out").exists()
    with pytest.raises(FFDError, match="has no item"):
        prepare_listing(Listing(()), root, tmp_path / "out", "mini", SMALL)
    with pytest.raises(FFDError, match="lies inside the data set"):
        prepare_listing(Listing((item("a.mp4"),)), root, root / "out", "mini", SMALL)
    with pytest.raises(FFDError, match="--frames 0 is out of range"):
        prepare_listing(Listing((item("a.mp4"),)), root, tmp_path / "out", "mini", replace(SMALL, frames=0))
    with pytest.raises(FFDError, match="none of the 1 items gave a face"):
        prepare_listing(Listing((item("a.mp4"),)), root, tmp_path / "out", "mini", SMALL, progress=False)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    data: tuple[Path, Listing], done: tuple[Path, Prepared], tmp_path: Path
) -> None:
    """SIGKILL to the parent, again and again; its processes end with it."""
    root, listing = data
    out = tmp_path / "out"
    listed = [{**one.__dict__, "extra": dict(one.extra)} for one in listing.items]
    (tmp_path / "listing.json").write_text(json.dumps([listed, list(listing.missing), list(listing.notes)]))
    code = (
        "import json, sys\nfrom pathlib import Path\n"
        "from ffd_continual.scenarios.datasets.listing import Item, Listing\n"
        "from ffd_continual.scenarios.prepare.prepare import prepare_listing\n"
        "from ffd_continual.scenarios.prepare.settings import PrepareConfig\n"
        "if __name__ == '__main__':\n"
        "    items, missing, notes = json.loads(Path(sys.argv[1]).read_text())\n"
        "    items = [Item(**{**one, 'files': tuple(one['files'])}) for one in items]\n"
        "    config = PrepareConfig(frames=4, size=64)\n"
        "    listing = Listing(tuple(items), tuple(missing), tuple(notes))\n"
        "    root, out = Path(sys.argv[2]), Path(sys.argv[3])\n"
        "    prepare_listing(listing, root, out, 'mini', config, workers=2, progress=False)\n"
    )
    (tmp_path / "job.py").write_text(code)
    command = [sys.executable, str(tmp_path / "job.py"), str(tmp_path / "listing.json"), str(root), str(out)]
    journal = out / "prepare.jsonl"
    for lines in range(1, 8):  # killed when so many lines are there, and as soon as one may
        with (tmp_path / "said").open("a") as said:
            process = subprocess.Popen(command, stderr=said)
        limit = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < limit:
            if journal.exists() and journal.read_bytes().count(b"\n") > lines:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.005)
        process.wait()
    assert "Traceback" not in (tmp_path / "said").read_text()
    subprocess.run(command, check=True)
    assert fingerprint(out) == fingerprint(done[0])
    parts = [json.loads(line)["video"] for line in journal.read_text().splitlines()[1:]]
    assert len(parts) == len(set(parts)) == 8  # no video was done twice
