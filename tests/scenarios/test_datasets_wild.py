"""FFIW-10K, KoDF and FakeAVCeleb in miniature, each after the listing that its test cites."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from ffd_continual.scenarios.datasets.listing import Item, Listing
from ffd_continual.scenarios.errors import FFDError

Plant = Callable[..., None]
Faults = Callable[[Listing], list[str]]
ByPath = Callable[[Listing], dict[str, Item]]
Read = Callable[..., Listing]


# FFIW-10K: "Dataset Structure" of README.md of github.com/tfzhou/FFIW, source / target / target_mask with train and val
def ffiw(root: Path, plant: Plant, *parts: str) -> None:
    for part in parts:
        names = [f"{part}_0000000{at}" for at in range(2)]
        for folder in ("source", "target"):
            plant(root, *(f"{folder}/{part}/{name}.mp4" for name in names))
        plant(root, *(f"target_mask/{part}/{name}_mask.mp4" for name in names))


def test_ffiw_official_tree(tmp_path: Path, plant: Plant, faults_of: Faults, by_path: ByPath, read: Read) -> None:
    ffiw(tmp_path / "FFIW10K-v1-release", plant, "train", "val")
    ffiw(tmp_path / "FFIW10K-v1-release-test/FFIW10K-v1-release-test", plant, "test")
    listing = read("ffiw", tmp_path)
    found = by_path(listing)
    assert len(found) == 3 * 4
    fake = found["FFIW10K-v1-release/target/val/val_00000001.mp4"]
    real = found["FFIW10K-v1-release/source/val/val_00000001.mp4"]
    assert (fake.label, fake.forgery, fake.split, real.label, real.split) == (1, "ffiw", "valid", 0, "valid")
    assert fake.pair == real.video
    assert fake.mask == "FFIW10K-v1-release/target_mask/val/val_00000001_mask.mp4"
    assert {item.split for item in listing.items} == {"train", "valid", "test"}
    assert listing.missing == ()
    assert faults_of(listing) == []
    assert not any("no test part" in note for note in listing.notes)
    assert any("pristine faces too" in note for note in listing.notes)


def test_ffiw_partial(tmp_path: Path, plant: Plant, read: Read) -> None:
    ffiw(tmp_path, plant, "val")
    (tmp_path / "source/val/val_00000000.mp4").unlink()
    (tmp_path / "target/val/val_00000001.mp4").unlink()
    (tmp_path / "target_mask/val/val_00000000_mask.mp4").unlink()
    listing = read("ffiw", tmp_path)
    assert set(listing.missing) == {
        "source/val/val_00000000.mp4", "target/val/val_00000001.mp4", "target_mask/val/val_00000000_mask.mp4"
    }  # fmt: skip
    assert [(item.pair, item.mask) for item in listing.items if item.label] == [("", "")]
    assert any("no test part" in note for note in listing.notes)


# KoDF: kodf_release/original_videos and synthesized_videos/MODEL; metadata of AI-Hub after preprocess/kodf of
# github.com/HanMoonSub/DeepGuard (split_data.py: columns 영상ID, 타겟영상, 변조모델)
ANNA, BORA, CHAN = "23d3dsdfsdf34", "77aa77aa77aa7", "99ff99ff99ff9"
ORIGINAL = "영상ID,UUID,인물성별\n"
FORGED = "영상ID,타겟영상,변조모델,소스UUID\n"


def kodf_metadata(root: Path) -> None:
    folder = root / "train_meta_data"
    folder.mkdir(parents=True)
    (folder / "원본영상_training_메타데이터.csv").write_text(
        f"{ORIGINAL}200715_{ANNA}_1.mp4,{ANNA},여성\n200715_{BORA}_1.mp4,{BORA},남성\n", encoding="utf-8-sig"
    )
    (folder / "변조영상_training_메타데이터.csv").write_text(
        f"{FORGED}aa01.mp4,200715_{ANNA}_1.mp4,dffs,{BORA}\naa02.mp4,200715_{ANNA}_1.mp4,audio-driven,\n"
    )
    (folder / "원본영상_validation_메타데이터.csv").write_text(f"{ORIGINAL}200716_{CHAN}_4.mp4,{CHAN},남성\n")
    (folder / "변조영상_validation_메타데이터.csv").write_text(f"{FORGED}bb01.mp4,200716_{CHAN}_4.mp4,fo,\n")


KODF = {
    "release": (
        f"original_videos/{ANNA}/200715_{ANNA}_1.mp4",
        f"original_videos/{BORA}/200715_{BORA}_1.mp4",
        "synthesized_videos/dffs/x/aa01.mp4",
        "synthesized_videos/audio-driven/x/aa02.mp4",
        f"original_videos/{CHAN}/200716_{CHAN}_4.mp4",
        "synthesized_videos/fo/x/bb01.mp4",
    ),
    "AI-Hub": (
        f"딥페이크 변조 영상/1.Training/[원천][원본]원본1/{ANNA}/200715_{ANNA}_1.mp4",
        f"딥페이크 변조 영상/1.Training/[원천][원본]원본1/{BORA}/200715_{BORA}_1.mp4",
        "딥페이크 변조 영상/1.Training/[원천][변조]train_dffs1_data/aa01.mp4",
        "딥페이크 변조 영상/1.Training/[원천][변조]audio_driven1/aa02.mp4",
        f"딥페이크 변조 영상/2.Validation/[원천][원본]원본1/200716_{CHAN}_4.mp4",
        "딥페이크 변조 영상/2.Validation/[원천][변조]val_fo1_data/bb01.mp4",
    ),
}


@pytest.mark.parametrize("form", KODF)
def test_kodf_official_trees(tmp_path: Path, plant: Plant, faults_of: Faults, form: str, read: Read) -> None:
    plant(tmp_path, *(unicodedata.normalize("NFD", path) for path in KODF[form]))  # as macOS unpacks
    kodf_metadata(tmp_path)
    listing = read("kodf", tmp_path)
    found = {item.video: item for item in listing.items}
    assert len(found) == len(listing.items) == 6
    assert [found[name].label for name in (f"200715_{ANNA}_1", f"200716_{CHAN}_4", "aa01", "bb01")] == [0, 0, 1, 1]
    fake = found["aa01"]
    assert (fake.forgery, fake.split, fake.pair) == ("dffs", "train", f"200715_{ANNA}_1")
    assert (fake.identity, fake.source_identity) == (ANNA, BORA)
    assert (found["aa02"].forgery, found["bb01"].split, found["bb01"].identity) == ("audio-driven", "valid", CHAN)
    assert found[f"200715_{ANNA}_1"].extra == {"gender": "여성"}
    assert listing.missing == ()
    assert faults_of(listing) == []
    some = read("kodf", tmp_path, forgeries=("fo",))
    assert {item.forgery for item in some.items} == {"real", "fo"}


def test_kodf_without_metadata_and_partial(tmp_path: Path, plant: Plant, read: Read) -> None:
    plant(tmp_path, *KODF["release"][1:])
    bare = read("kodf", tmp_path)
    assert {(item.forgery, item.split) for item in bare.items} == {
        ("real", ""), ("dffs", ""), ("audio-driven", ""), ("fo", "")
    }  # fmt: skip
    assert {item.identity for item in bare.items if not item.label} == {BORA, CHAN}
    assert any("no metadata" in note for note in bare.notes)
    kodf_metadata(tmp_path)
    listing = read("kodf", tmp_path)
    assert listing.missing == (f"200715_{ANNA}_1.mp4",)
    assert [item.pair for item in listing.items if item.video == "aa01"] == [""]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"aa03.mp4,200715_{ANNA}_1.mp4,magic,", "line 4: 'magic' is no model of KoDF"),
        (f",200715_{ANNA}_1.mp4,dfl,", "line 4: names no clip"),
        (f"aa01.mp4,200715_{BORA}_1.mp4,dfl,", "line 4: 'aa01' is in .*line 2 already"),
    ],
)
def test_kodf_wrong_metadata_fail(tmp_path: Path, plant: Plant, row: str, message: str, read: Read) -> None:
    plant(tmp_path, *KODF["release"])
    kodf_metadata(tmp_path)
    file = tmp_path / "train_meta_data/변조영상_training_메타데이터.csv"
    file.write_text(file.read_text() + row + "\n")
    with pytest.raises(FFDError, match=message):
        read("kodf", tmp_path)


def test_kodf_metadata_against_folder_or_header_fail(tmp_path: Path, plant: Plant, read: Read) -> None:
    plant(tmp_path, *KODF["release"][:2], "synthesized_videos/dfl/aa01.mp4")
    kodf_metadata(tmp_path)
    with pytest.raises(FFDError, match=r"dfl/aa01\.mp4 is dfl by its folder and dffs by the metadata"):
        read("kodf", tmp_path)
    (tmp_path / "train_meta_data/변조영상_training_메타데이터.csv").write_text("영상ID,x\n")
    with pytest.raises(FFDError, match="line 1: the header lacks 변조모델, 타겟영상"):
        read("kodf", tmp_path)


# FakeAVCeleb: folders of sites.google.com/view/fakeavcelebdash-lab/documentation; the list's header has a name too few
HEADER = "source,target1,target2,method,category,type,race,gender,path,\n"


def row(person: str, target: str, method: str, kind: str, file: str) -> str:
    return f"{person},{target},-,{method},D,{kind},African,men,{file},FakeAVCeleb/{kind}/African/men/{person}\n"


ROWS = (
    row("id00076", "-", "real", "RealVideo-RealAudio", "00109.mp4")
    + row("id00166", "-", "real", "RealVideo-RealAudio", "00010.mp4")
    + row("id00076", "id00476", "wav2lip", "FakeVideo-FakeAudio", "00109_10_id00476_wavtolip.mp4")
    + row("id00076", "id00166", "faceswap", "FakeVideo-RealAudio", "00109_id00166_faceswap.mp4")
    + row("id00076", "-", "rtvc", "RealVideo-FakeAudio", "00109_fake.mp4")
)


@pytest.fixture
def celebs(tmp_path: Path, plant: Plant) -> Path:
    plant(tmp_path, *(path for path in ("RealVideo-RealAudio/African/men/id00076/00109.mp4",
        "RealVideo-RealAudio/African/men/id00166/00010.mp4",
        "FakeVideo-FakeAudio/African/men/id00076/00109_10_id00476_wavtolip.mp4",
        "FakeVideo-RealAudio/African/men/id00076/00109_id00166_faceswap.mp4",
        "RealVideo-FakeAudio/African/men/id00076/00109_fake.mp4")))  # fmt: skip
    (tmp_path / "meta_data.csv").write_text(HEADER + ROWS)
    return tmp_path


def test_fakeavceleb_official_tree(celebs: Path, faults_of: Faults, read: Read, by_path: ByPath) -> None:
    listing = read("fakeavceleb", celebs)
    found = by_path(listing)
    assert len(found) == 4
    swap = found["FakeVideo-RealAudio/African/men/id00076/00109_id00166_faceswap.mp4"]
    assert (swap.label, swap.forgery, swap.identity, swap.source_identity) == (1, "faceswap", "id00076", "id00166")
    real = found["RealVideo-RealAudio/African/men/id00076/00109.mp4"]
    assert (real.label, real.forgery, real.identity) == (0, "real", "id00076")
    lips = found["FakeVideo-FakeAudio/African/men/id00076/00109_10_id00476_wavtolip.mp4"]
    assert (lips.forgery, lips.source_identity) == ("wav2lip", "")
    assert swap.pair == lips.pair == real.video
    assert (swap.extra["race"], swap.extra["gender"], swap.split) == ("African", "men", "")
    assert any("1 clip(s) of RealVideo-FakeAudio are not read" in note for note in listing.notes)
    assert faults_of(listing) == []


def test_fakeavceleb_partial_and_doubled(celebs: Path, read: Read) -> None:
    (celebs / "RealVideo-RealAudio/African/men/id00076/00109.mp4").unlink()
    twice = row("id00076", "id00166", "fsgan", "FakeVideo-RealAudio", "00109_id00166_faceswap.mp4")
    hostile = row("id00076", "-", "fsgan", "FakeVideo-RealAudio", "../../../../../out.mp4")
    (celebs / "meta_data.csv").write_text(HEADER + ROWS + twice + hostile)
    listing = read("fakeavceleb", celebs)
    assert listing.missing == ("RealVideo-RealAudio/African/men/id00076/00109.mp4",)
    assert {item.forgery for item in listing.items} == {"real", "wav2lip", "faceswap"}
    assert not any(item.pair for item in listing.items)
    assert any("1 file(s) twice with two methods" in note for note in listing.notes)
    assert any("leads out of its folder" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + ROWS + "id1,-,-,real\n", r"meta_data\.csv, line 7: has 4 cells and needs 10"),
        (
            HEADER + ROWS + row("id1", "-", "magic", "FakeVideo-RealAudio", "1.mp4"),
            "line 7: method 'magic' in FakeVideo",
        ),
        (
            HEADER + ROWS + row("id1", "-", "fsgan", "RealVideo-RealAudio", "1.mp4"),
            "line 7: method 'fsgan' in RealVideo",
        ),
        (HEADER + ROWS + row("id1", "-", "real", "RealVideo", "1.mp4"), "line 7: type 'RealVideo' is not the folder's"),
        ("filename,label\n1.mp4,0\n", "line 1: the header is not source,target1"),
        ("", "line 1: the header is not source,target1"),
        (HEADER + "x" * 200_000 + "\n", "line 2: is no CSV"),
    ],
)
def test_fakeavceleb_wrong_list_fails(celebs: Path, text: str, message: str, read: Read) -> None:
    (celebs / "meta_data.csv").write_text(text)
    with pytest.raises(FFDError, match=message):
        read("fakeavceleb", celebs)
