"""WildDeepfake, DF40 and DeepfakeBench's JSON in miniature: faces that are cut out already.

Layouts after code that loads WildDeepfake's release (real_train/N.tar.gz, ...); YZY-stack/DF40 (README.md, issues 36
and 41, preprocessing/rearrange.py); SCLBD/DeepfakeBench (preprocessing/rearrange.py, training/dataset).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ffd_continual.scenarios.datasets.listing import Item, Listing, Wanted, adapter
from ffd_continual.scenarios.errors import FFDError

Plant = Callable[..., None]


def by_path(listing: Listing) -> dict[str, Item]:
    assert len({item.video for item in listing.items}) == len(listing.items)
    return {item.path: item for item in listing.items}


def pack(root: Path, plant: Plant, archive: str, *members: str) -> None:
    plant(root / "aside", *members)
    (root / archive).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / archive, "w:gz") as packed:
        for member in members:
            packed.add(root / "aside" / member, member)


def test_wilddeepfake_archives_and_folders(tmp_path: Path, plant: Plant) -> None:
    home = "deepfake_in_the_wild"
    for number in range(8):
        pack(tmp_path, plant, f"{home}/real_train/{number}.tar.gz", f"{number}/real/{number}0/1.png")
    pack(tmp_path, plant, f"{home}/fake_test/3.tar.gz", "3/fake/31/1.png", "3/fake/31/2.png")
    plant(tmp_path, *(f"{home}/fake_train/5/fake/{seq}/{frame}.png" for seq in (10, 9) for frame in (1, 2)))
    pack(tmp_path, plant, f"{home}/fake_train/5.tar.gz", "5/fake/10/1.png")
    listing = adapter("wilddeepfake").index(tmp_path, Wanted())
    found = by_path(listing)
    archive = found[f"{home}/fake_test/3.tar.gz"]
    assert (archive.kind, archive.label, archive.forgery, archive.split) == ("archive", 1, "wild", "test")
    assert archive.cropped
    assert archive.video == "fake_test/3"
    # Unpacked already: its sequences are taken, in order, and not the archive again; they stay together.
    sequences = [item for item in listing.items if item.path.startswith(f"{home}/fake_train")]
    assert [item.path for item in sequences] == [f"{home}/fake_train/5/fake/9", f"{home}/fake_train/5/fake/10"]
    assert {(item.kind, item.identity, item.cropped) for item in sequences} == {("frames", "fake_train/5", True)}
    splits = {item.split for item in listing.items if item.path.startswith(f"{home}/real_train")}
    assert splits == {"train", "valid"}  # the authors name no validation part: some archives of train are one
    assert listing.missing == ("real_test",)
    assert any("no validation part" in note for note in listing.notes)
    with pytest.raises(FFDError, match="nothing of it"):
        adapter("wilddeepfake").index(tmp_path / "aside", Wanted())


@pytest.fixture
def df40(tmp_path: Path, plant: Plant) -> Path:
    for pair in ("000_003", "001_870", "002_006", "010_005", "012_026", "018_019"):
        plant(tmp_path, f"DF40_train/simswap/ff/frames/{pair}/000.png", f"DF40_train/simswap/ff/frames/{pair}/009.png")
        plant(tmp_path, f"DF40_train/simswap/ff/landmarks/{pair}/000.png")
    plant(tmp_path, "DF40/simswap/cdf/frames/id0_id16_0003/000.png", "DF40/MidJourney/fake/ab12.png")
    plant(tmp_path, "DF40/MidJourney/real/00001.png", "DF40/e4e/cdf/Celeb-real/inversions/00170.jpg")
    plant(tmp_path, "DF40/e4e/ff/071/0005.jpg", "DF40/brandnew/fake/1.png")
    return tmp_path


def test_df40_folders(df40: Path) -> None:
    listing = adapter("df40").index(df40, Wanted())
    found = by_path(listing)
    swap = found["DF40_train/simswap/ff/frames/000_003"]
    assert (swap.kind, swap.label, swap.forgery, swap.dataset) == ("frames", 1, "simswap", "faceforensics")
    assert (swap.identity, swap.source_identity, swap.cropped) == ("000", "003", True)
    celeb = found["DF40/simswap/cdf/frames/id0_id16_0003"]
    assert (celeb.identity, celeb.source_identity, celeb.dataset, celeb.split) == ("id0", "id16", "celebdf", "test")
    assert (found["DF40/MidJourney/real/00001.png"].label, found["DF40/MidJourney/fake/ab12.png"].label) == (0, 1)
    inverted = found["DF40/e4e/cdf/Celeb-real/inversions/00170.jpg"]  # "Celeb-real" is what was forged, no label
    assert (inverted.kind, inverted.label, inverted.forgery) == ("picture", 1, "e4e")
    assert (found["DF40/e4e/ff/071"].kind, found["DF40/e4e/ff/071"].identity) == ("frames", "071")
    assert not any("landmarks" in path for path in found)
    assert {item.split for item in listing.items if item.path.startswith("DF40_train")} == {"train", "valid"}
    assert len(listing.missing) == 37
    assert "fomm" in listing.missing
    assert any("brandnew" in note for note in listing.notes)
    only = adapter("df40").index(df40, Wanted(forgeries=("e4e",)))
    assert {item.forgery for item in only.items} == {"e4e"}
    assert only.missing == ()
    with pytest.raises(FFDError, match="Did you mean 'simswap'"):
        adapter("df40").index(df40, Wanted(forgeries=("simswop",)))
    with pytest.raises(FFDError, match="nothing of it"):
        adapter("df40").index(df40 / "DF40" / "brandnew", Wanted())


def test_df40_videos_count_where_nothing_was_cut_from_them(df40: Path, plant: Plant) -> None:
    before = {item.path for item in adapter("df40").index(df40, Wanted()).items}
    plant(df40, "DF40/heygen/fake/clip7.mp4", "DF40/heygen/fake/frames/clip8/000.png", "DF40/heygen/fake/clip8.mp4")
    listing = adapter("df40").index(df40, Wanted())
    new = {item.path: item for item in listing.items if item.path not in before}
    assert set(new) == {"DF40/heygen/fake/clip7.mp4", "DF40/heygen/fake/frames/clip8"}
    video = new["DF40/heygen/fake/clip7.mp4"]
    assert (video.kind, video.cropped, video.label, video.forgery, video.split) == ("video", False, 1, "heygen", "test")
    assert new["DF40/heygen/fake/frames/clip8"].cropped
    assert any("1 videos without cut-out faces" in note for note in listing.notes)


def entry(label: str, *frames: str, **more: list[str]) -> dict[str, object]:
    return {"label": label, "frames": list(frames), **more}


OLD = "/data/someone/deepfakes/FaceForensics++"


@pytest.fixture
def bench(tmp_path: Path, plant: Plant) -> Path:
    """FaceForensics++ (with compressions), Celeb-DF (without, test also in train) and a method of DF40."""
    real, fake = "original_sequences/youtube/c23/frames", "manipulated_sequences/Deepfakes/c23/frames"
    masks = "manipulated_sequences/Deepfakes/c23/masks/000_003"
    plant(tmp_path, *(f"FaceForensics++/{real}/{v}/{n:03}.png" for v in ("000", "003", "071") for n in (0, 9, 10)))
    plant(tmp_path, *(f"FaceForensics++/{fake}/{v}/{n:03}.png" for v in ("000_003", "071_054") for n in (0, 9, 10)))
    plant(tmp_path, f"FaceForensics++/{masks}/000.png")
    plant(tmp_path, *(f"Celeb-DF-v2/Celeb-real/frames/id{n}_0001/000.png" for n in (1, 2)))
    plant(tmp_path, "Celeb-DF-v2/Celeb-synthesis/frames/id1_id2_0001/000.png")

    def originals(*names: str) -> dict[str, dict[str, dict[str, object]]]:
        frames = {name: [f"{OLD}/{real}/{name}/{n:03}.png" for n in (10, 0, 9)] for name in names}
        return {"c23": {name: entry("FF-real", *paths) for name, paths in frames.items()}}

    def forged(name: str, **more: list[str]) -> dict[str, object]:
        return entry("FF-DF", *(f"{OLD}/{fake}/{name}/{n:03}.png" for n in (10, 0, 9)), **more)

    ff = {
        "FF-real": {"train": originals("000", "003"), "val": {"c23": {}}, "test": originals("071")},
        "FF-DF": {
            "train": {"c23": {"000_003": forged("000_003", masks=[f"{OLD}/{masks}/000.png"])}},
            "val": {"c23": {"005_010": forged("005_010")}},
            "test": {"c23": {"071_054": forged("071_054")}},
        },
    }
    celeb = "./datasets\\Celeb-DF-v2\\"
    one = {"id1_0001": entry("CelebDFv2_real", f"{celeb}Celeb-real\\frames\\id1_0001\\000.png")}
    two = {"id2_0001": entry("CelebDFv2_real", f"{celeb}Celeb-real\\frames\\id2_0001\\000.png")}
    swap = {"id1_id2_0001": entry("CelebDFv2_fake", f"{celeb}Celeb-synthesis\\frames\\id1_id2_0001\\000.png")}
    cdf = {
        "CelebDFv2_real": {"train": one | two, "val": two, "test": two},
        "CelebDFv2_fake": {"train": swap, "val": {}, "test": {}},
    }
    df40 = {
        "roop_Fake": {"test": {"000_003": entry("roop_Fake", "deepfakes/DF40/uniface/ff/frames/000_003/000.png")}},
        "roop_Real": {"test": {"000": originals("000")["c23"]["000"] | {"label": "roop_Real"}}},
    }
    plant(tmp_path, "DF40/uniface/ff/frames/000_003/000.png")
    folder = tmp_path / "dataset_json"
    folder.mkdir()
    for name, value in (("FF-DF", ff), ("FaceForensics++", ff), ("Celeb-DF-v2", cdf), ("uniface_ff", df40)):
        (folder / f"{name}.json").write_text(json.dumps({name: value}))
    return tmp_path


def test_deepfakebench(bench: Path) -> None:
    listing = adapter("deepfakebench").index(bench, Wanted())
    found = by_path(listing)
    assert len(found) == len(listing.items) == 9  # files that repeat each other count once
    fake = found["FaceForensics++/manipulated_sequences/Deepfakes/c23/frames/000_003"]
    assert (fake.kind, fake.cropped, fake.files) == ("frames", True, ("000.png", "009.png", "010.png"))
    assert (fake.label, fake.forgery, fake.compression, fake.dataset) == (1, "deepfakes", "c23", "faceforensics")
    assert (fake.identity, fake.source_identity) == ("000", "003")
    assert fake.mask == "FaceForensics++/manipulated_sequences/Deepfakes/c23/masks/000_003"
    real = found["FaceForensics++/original_sequences/youtube/c23/frames/000"]
    assert (fake.pair, real.label, real.forgery) == (real.video, 0, "real")
    tested = found["FaceForensics++/manipulated_sequences/Deepfakes/c23/frames/071_054"]
    assert tested.split == "test"
    # Named by the file, as the label "roop_Fake" stands for several methods; its original is FF++'s.
    uniface = found["DF40/uniface/ff/frames/000_003"]
    assert (uniface.forgery, uniface.dataset, uniface.pair) == ("uniface", "faceforensics", real.video)
    celeb = found["Celeb-DF-v2/Celeb-synthesis/frames/id1_id2_0001"]
    assert (celeb.dataset, celeb.identity, celeb.source_identity) == ("celebdf", "id1", "id2")
    assert celeb.pair == found["Celeb-DF-v2/Celeb-real/frames/id1_0001"].video
    # Celeb-DF's file repeats its test videos in train: test wins.
    assert found["Celeb-DF-v2/Celeb-real/frames/id2_0001"].split == "test"
    assert found["Celeb-DF-v2/Celeb-real/frames/id1_0001"].split in ("train", "valid")
    assert any("005_010" in path for path in listing.missing)
    only = adapter("deepfakebench").index(bench, Wanted(forgeries=("uniface",)))
    assert {item.forgery for item in only.items} == {"real", "uniface"}


def test_deepfakebench_without_a_split(tmp_path: Path, plant: Plant) -> None:
    """UADFV's file puts every video into train, val and test: that is no split."""
    videos = {f"{n:04}": entry("UADFV_Real", f"UADFV/real/frames/{n:04}/0.png") for n in range(3)}
    fakes = {f"{n:04}_fake": entry("UADFV_Fake", f"UADFV/fake/frames/{n:04}_fake/0.png") for n in range(3)}
    plant(tmp_path, *(f"UADFV/real/frames/{n:04}/0.png" for n in range(3)))
    plant(tmp_path, *(f"UADFV/fake/frames/{n:04}_fake/0.png" for n in range(3)))
    table = {"UADFV_Real": dict.fromkeys(("train", "val", "test"), videos)}
    table["UADFV_Fake"] = dict.fromkeys(("train", "val", "test"), fakes)
    (tmp_path / "UADFV.json").write_text(json.dumps({"UADFV": table}))
    listing = adapter("deepfakebench").index(tmp_path, Wanted())
    assert len(by_path(listing)) == 6
    assert {(item.split, item.dataset) for item in listing.items} == {("", "uadfv")}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"A": {"A_Real": {"training": {}}}}, "'training' is no split"),
        ({"A": []}, "no table of data sets"),
        (
            {"A": {"A_Real": {"train": {"v": {"label": "A_Fake", "frames": ["A/v/1.png"]}}}}},
            "no video that can be used",
        ),
        (
            {"A": {"A_Fake": {"train": {"v": {"label": "A_Fake", "frames": ["../A/1.png"]}}}}},
            "no video that can be used",
        ),
    ],
)
def test_deepfakebench_wrong_file_fails_by_name(tmp_path: Path, value: object, says: str) -> None:
    (tmp_path / "A.json").write_text(json.dumps(value))
    with pytest.raises(FFDError, match=says) as caught:
        adapter("deepfakebench").index(tmp_path, Wanted())
    assert "A.json" in str(caught.value)


def test_deepfakebench_contradiction(bench: Path) -> None:
    wrong = {
        "X": {"X_Fake": {"test": {"000": entry("X_Fake", f"{OLD}/original_sequences/youtube/c23/frames/000/000.png")}}}
    }
    (bench / "dataset_json" / "X.json").write_text(json.dumps(wrong))
    with pytest.raises(FFDError, match="with the same frames"):
        adapter("deepfakebench").index(bench, Wanted())
