"""Celeb-DF, DeeperForensics-1.0, UADFV and DeepfakeTIMIT in miniature, each after the listing that its test cites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ffd_continual.scenarios.datasets.listing import Item, Listing, adapter
from ffd_continual.scenarios.errors import FFDError

Plant = Callable[..., None]
Faults = Callable[[Listing], list[str]]
ByPath = Callable[[Listing], dict[str, Item]]
Read = Callable[..., Listing]


# Celeb-DF: folders after Celeb-DF-v1/README.md and Celeb-DF-v2/README.md of github.com/yuezunli/celeb-deepfakeforensics
CELEB = [f"Celeb-real/id{person}_000{clip}.mp4" for person in (0, 1, 2) for clip in range(3)]
CELEB += [f"YouTube-real/0017{clip}.mp4" for clip in range(3)]
CELEB += [f"Celeb-synthesis/id{a}_id{b}_000{clip}.mp4" for a, b in ((0, 1), (1, 0), (2, 0)) for clip in range(3)]
CELEB_LIST = "1 YouTube-real/00170.mp4\n1 Celeb-real/id0_0000.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n"


@pytest.fixture
def celeb(tmp_path: Path, plant: Plant) -> Path:
    root = tmp_path / "Celeb-DF-v2"
    plant(root, *CELEB)
    (root / "List_of_testing_videos.txt").write_text(CELEB_LIST)
    return root


def test_celebdf_official_tree(celeb: Path, by_path: ByPath, read: Read) -> None:
    listing = read("celebdf", celeb)
    found = by_path(listing)
    assert sorted(found) == sorted(CELEB)
    assert {item.dataset for item in listing.items} == {"celebdf-v2"}
    fake = found["Celeb-synthesis/id0_id1_0000.mp4"]
    assert (fake.label, fake.forgery, fake.identity, fake.source_identity) == (1, "celeb-synthesis", "id0", "id1")
    assert fake.pair == found["Celeb-real/id0_0000.mp4"].video
    assert {path for path, item in found.items() if item.split == "test"} == {
        line.split()[1] for line in CELEB_LIST.splitlines()
    }
    assert all(item.label == ("synthesis" in path) for path, item in found.items())
    assert found["YouTube-real/00170.mp4"].identity != found["YouTube-real/00171.mp4"].identity
    assert listing.missing == ()


def test_celebdf_validation_is_by_recording(celeb: Path, read: Read, by_path: ByPath) -> None:
    """The list names no validation part; a recording and what was made from it stay on one side."""
    found = by_path(read("celebdf", celeb))
    assert {item.split for item in found.values()} == {"train", "valid", "test"}
    for item in found.values():
        if item.pair:
            original = found[f"Celeb-real/{item.pair}.mp4"]
            assert item.split == original.split


def test_celebdf_says_that_the_official_list_crosses_persons(celeb: Path, faults_of: Faults, read: Read) -> None:
    listing = read("celebdf", celeb)
    assert "identity-in-two-splits" in faults_of(listing)
    assert any("in several splits by the official list" in note for note in listing.notes)


@pytest.mark.parametrize(("folder", "dataset"), [("Celeb-DF-v1", "celebdf-v1"), ("videos", "celebdf")])
def test_celebdf_version(tmp_path: Path, plant: Plant, folder: str, dataset: str, read: Read) -> None:
    plant(tmp_path / folder, *CELEB)
    listing = read("celebdf", tmp_path / folder)
    assert {(item.dataset, item.split) for item in listing.items} == {(dataset, "")}
    assert any("List_of_testing_videos.txt: no official split" in note for note in listing.notes)


def test_celebdf_v1_beside_v2_is_refused(tmp_path: Path, plant: Plant, read: Read) -> None:
    for folder in ("Celeb-DF-v1", "Celeb-DF-v2"):
        plant(tmp_path / folder, *CELEB)
    with pytest.raises(FFDError, match="Celeb-DF-v1 and Celeb-DF-v2: v1 and v2 share people"):
        read("celebdf", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 YouTube-real/00171.mp4", "line 4: label 0 for a clip of YouTube-real; in this list 1 is real"),
        ("1 Celeb-synthesis/id0_id1_0001.mp4", "line 4: label 1 for a clip of Celeb-synthesis"),
        ("1 Celeb-real/id0_0000.mp4", r"line 4: Celeb-real/id0_0000 stands in line 2 already"),
        ("1 Celeb-fake/id0_0000.mp4", "line 4: .* is no line such as"),
        ("2 Celeb-real/id0_0001.mp4", "line 4: .* is no line such as"),
        ("1 ../../etc/passwd", "line 4: .* is no line such as"),
    ],
)
def test_celebdf_wrong_list_fails(celeb: Path, line: str, message: str, read: Read) -> None:
    (celeb / "List_of_testing_videos.txt").write_text(CELEB_LIST + line + "\n")
    with pytest.raises(FFDError, match=r"List_of_testing_videos\.txt, " + message):
        read("celebdf", celeb)


def test_celebdf_partial_download(celeb: Path, read: Read, by_path: ByPath) -> None:
    (celeb / "Celeb-synthesis/id0_id1_0000.mp4").unlink()
    (celeb / "Celeb-real/id2_0001.mp4").unlink()
    for file in (celeb / "YouTube-real").iterdir():
        file.unlink()
    listing = read("celebdf", celeb)
    assert set(listing.missing) == {"Celeb-synthesis/id0_id1_0000.mp4", "YouTube-real/"}
    assert not by_path(listing)["Celeb-synthesis/id2_id0_0001.mp4"].pair


# DeeperForensics-1.0: "Dataset Structure" of dataset/README.md of github.com/EndlessSora/DeeperForensics-1.0
DEEPER = {"train": ["000_M101", "001_W002"], "val": ["002_M103"], "test": ["003_W104"]}


@pytest.fixture
def deeper(tmp_path: Path, plant: Plant) -> Path:
    names = [name for part in DEEPER.values() for name in part]
    for folder in ("end_to_end", "end_to_end_level_3", "reenact_postprocess"):
        plant(tmp_path, *(f"manipulated_videos/{folder}/{name}.mp4" for name in names))
    plant(tmp_path, "source_videos/M101/BlendShape/M101_BlendShape_camera_front.mp4")
    (tmp_path / "lists/splits").mkdir(parents=True)
    for part, listed in DEEPER.items():
        (tmp_path / f"lists/splits/{part}.txt").write_text("".join(f"{name}.mp4\n" for name in listed))
    return tmp_path


def test_deeperforensics_official_tree(
    deeper: Path, plant: Plant, faults_of: Faults, read: Read, by_path: ByPath
) -> None:
    plant(deeper, *(f"target_videos/00{at}.mp4" for at in range(4)))
    listing = read("deeperforensics", deeper)
    found = by_path(listing)
    assert len(found) == 3 * 4 + 4
    fake = found["manipulated_videos/end_to_end_level_3/002_M103.mp4"]
    assert (fake.label, fake.forgery, fake.compression, fake.split) == (1, "end_to_end", "level_3", "valid")
    assert (fake.identity, fake.source_identity, fake.pair) == ("002", "M103", "002")
    real = found["target_videos/002.mp4"]
    assert (real.label, real.video, real.split, real.compression) == (0, "002", "valid", "c23")
    assert {item.split for item in listing.items} == {"train", "valid", "test"}
    assert faults_of(listing) == []
    assert "manipulated_videos/end_to_end_level_1/" in listing.missing
    clean = read("deeperforensics", deeper, compressions=("clean",), forgeries=("end_to_end",))
    assert {Path(item.path).parts[-2] for item in clean.items} == {"end_to_end", "target_videos"}
    assert clean.missing == ()


def test_deeperforensics_sources_are_not_its_real_part(deeper: Path, read: Read) -> None:
    listing = read("deeperforensics", deeper)
    assert all(item.label for item in listing.items)
    assert any("FaceForensics++ in c23" in note for note in listing.notes)
    assert any("source_videos is not read" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [("002_M103.mp4\n2_M103.mp4\n", r"val\.txt, line 2: '2_M103.mp4' is no clip"),
     ("002_M103.mp4\n\n001_W002.mp4\n", r"val\.txt, line 3: 001_W002 stands in train\.txt, line 2 already")],
)  # fmt: skip
def test_deeperforensics_wrong_split_fails(deeper: Path, text: str, message: str, read: Read) -> None:
    (deeper / "lists/splits/val.txt").write_text(text)
    with pytest.raises(FFDError, match=message):
        read("deeperforensics", deeper)


def test_deeperforensics_lists_are_all_or_none(deeper: Path, read: Read) -> None:
    (deeper / "lists/splits/val.txt").unlink()
    with pytest.raises(FFDError, match=r"holds train\.txt, test\.txt only"):
        read("deeperforensics", deeper)


def test_deeperforensics_partial_and_crossing(deeper: Path, faults_of: Faults, read: Read) -> None:
    (deeper / "manipulated_videos/end_to_end/000_M101.mp4").unlink()
    (deeper / "lists/splits/test.txt").write_text("003_M101.mp4\n")
    (deeper / "manipulated_videos/end_to_end/003_M101.mp4").write_bytes(b"")
    listing = read("deeperforensics", deeper, forgeries=("end_to_end",), compressions=("clean", "level_3"))
    assert set(listing.missing) == {
        "manipulated_videos/end_to_end/000_M101.mp4", "manipulated_videos/end_to_end_level_3/003_M101.mp4"
    }  # fmt: skip
    assert faults_of(listing) == ["identity-in-two-splits"]
    assert any("1 person(s), such as M101, are in several splits" in note for note in listing.notes)


# UADFV: real/0000.mp4 and fake/0000_fake.mp4 as read by github.com/SCLBD/DeepfakeBench (preprocessing/rearrange.py)
def test_uadfv(tmp_path: Path, plant: Plant, faults_of: Faults, read: Read, by_path: ByPath) -> None:
    plant(tmp_path, *(f"real/000{at}.mp4" for at in range(3)), *(f"fake/000{at}_fake.mp4" for at in (0, 1, 4)))
    plant(tmp_path, "real/notes.mp4", "fake/frames/0002_fake/000.png")
    listing = read("uadfv", tmp_path)
    found = by_path(listing)
    assert len(found) == 7
    fake = found["fake/0001_fake.mp4"]
    assert (fake.label, fake.forgery, fake.identity, fake.pair, fake.split) == (1, "fakeapp", "0001", "0001", "")
    assert found["real/0001.mp4"].label == 0
    assert found["fake/frames/0002_fake"].kind == "frames"
    assert listing.missing == ("real/0004.mp4",)
    assert any("notes.mp4" in note for note in listing.notes)
    assert faults_of(listing) == []


# DeepfakeTIMIT/QUALITY/SPEAKER/SENTENCE-video-DONOR.avi beside VidTIMIT/SPEAKER/video/SENTENCE/001 (frames without
# suffix, https://conradsanderson.id.au/vidtimit)
def test_deepfaketimit(tmp_path: Path, plant: Plant, faults_of: Faults, read: Read, by_path: ByPath) -> None:
    for quality in ("higher_quality", "lower_quality"):
        plant(tmp_path, *(f"DeepfakeTIMIT/{quality}/fadg0/sa{at}-video-fram1.avi" for at in (1, 2)))
        plant(tmp_path, f"DeepfakeTIMIT/{quality}/fram1/sx10-video-fadg0.avi")
    (tmp_path / "DeepfakeTIMIT/higher_quality/fadg0/sa1.wav").write_bytes(b"")
    plant(tmp_path, *(f"VidTIMIT/fadg0/video/sa1/{frame:03}" for frame in (1, 2, 3)), "VidTIMIT/fram1/sx10.avi")
    listing = read("deepfaketimit", tmp_path)
    found = by_path(listing)
    assert len(found) == 6 + 2
    fake = found["DeepfakeTIMIT/lower_quality/fadg0/sa1-video-fram1.avi"]
    assert (fake.label, fake.forgery, fake.identity, fake.source_identity) == (1, "lower_quality", "fadg0", "fram1")
    real = found["VidTIMIT/fadg0/video/sa1"]
    assert (real.label, real.kind, real.files) == (0, "frames", ("001", "002", "003"))
    assert fake.pair == real.video
    assert found["DeepfakeTIMIT/higher_quality/fram1/sx10-video-fadg0.avi"].pair == "fram1-sx10"
    assert found["VidTIMIT/fram1/sx10.avi"].kind == "video"
    assert any("2 forged clip(s) have no original" in note for note in listing.notes)
    assert any("fewer than 10 sentences of 2" in note for note in listing.notes)
    assert faults_of(listing) == []
    only = read("deepfaketimit", tmp_path, forgeries=("higher_quality",))
    assert {item.forgery for item in only.items} == {"real", "higher_quality"}


def test_deepfaketimit_without_vidtimit(tmp_path: Path, plant: Plant, read: Read) -> None:
    plant(tmp_path, "higher_quality/fadg0/sa1-video-fram1.avi", "higher_quality/fadg0/holiday.avi")
    listing = read("deepfaketimit", tmp_path)
    assert [item.label for item in listing.items] == [1]
    assert listing.missing == ("lower_quality/",)
    assert any("VidTIMIT's, a download of its own" in note for note in listing.notes)
    assert any("holiday.avi" in note for note in listing.notes)


OTHERS = (
    "celebdf", "deeperforensics", "deepfaketimit", "dfd", "faceforensics", "fakeavceleb", "ffiw", "kodf", "uadfv"
)  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_another_tree_is_refused_with_what_was_expected(tmp_path: Path, name: str, read: Read) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(FFDError, match="expected .*it holds holiday"):
        read(name, tmp_path)
    about = adapter(name).ABOUT
    assert all((about.title, about.citation, about.terms, about.layout, about.source))
    assert about.url.startswith("https://")
    assert max(len(line) for line in about.layout.splitlines()) <= 80  # it is printed as it is


@pytest.mark.parametrize("name", OTHERS)
def test_each_has_a_page_in_the_index(name: str) -> None:
    folder = Path(__file__).parents[2] / "docs/datasets"
    page, about = (folder / f"{name}.md").read_text(encoding="utf-8"), adapter(name).ABOUT
    assert f"[{name}]({name}.md)" in (folder / "README.md").read_text(encoding="utf-8")
    for part in ("How to get it", "Terms", "Layout", "Command", "Split", "Known caveats", "Disk and time per 1,000"):
        assert f"**{part}" in page, part
    assert f"ffd prepare {name} ROOT --out data/{name}" in page
    assert "verified against a download" in about.source
    assert "verified against a download" in " ".join(page.split())
