"""FaceForensics++ and DeepFakeDetection in miniature.

Layout after dataset/README.md, dataset/extract_compressed_videos.py and dataset/splits of github.com/ondyari/
FaceForensics: DATASET_PATHS/{raw,c23,c40}/videos, splits as lists of pairs of three digits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from ffd_continual.scenarios.datasets.listing import Item, Listing, Wanted, adapter
from ffd_continual.scenarios.errors import FFDError

Plant = Callable[..., None]
Faults = Callable[[Listing], list[str]]
ByPath = Callable[[Listing], dict[str, Item]]
PAIRS = {"train": [["071", "054"], ["087", "081"]], "val": [["720", "672"]], "test": [["953", "974"]]}
FORGED = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")


@pytest.fixture
def root(tmp_path: Path, plant: Plant) -> Path:
    """Pairs of `PAIRS` in c23 and, of Deepfakes and the originals, in c40."""
    pairs = [pair for part in PAIRS.values() for pair in part]
    both = [f"{a}_{b}.mp4" for pair in pairs for a, b in (pair, pair[::-1])]
    for level, forged in (("c23", FORGED), ("c40", FORGED[:1])):
        plant(tmp_path, *(f"original_sequences/youtube/{level}/videos/{n}.mp4" for pair in pairs for n in pair))
        for name in forged:
            plant(tmp_path, *(f"manipulated_sequences/{name}/{level}/videos/{clip}" for clip in both))
    for name in FORGED[:4]:
        plant(tmp_path, *(f"manipulated_sequences/{name}/masks/videos/{clip}" for clip in both))
    (tmp_path / "splits").mkdir()
    for part, listed in PAIRS.items():
        (tmp_path / "splits" / f"{part}.json").write_text(json.dumps(listed, indent=2))
    return tmp_path


def read(root: Path, name: str = "faceforensics", **wanted: tuple[str, ...]) -> Listing:
    return adapter(name).index(root, Wanted(**wanted))


def test_official_tree(root: Path, faults_of: Faults, by_path: ByPath) -> None:
    listing = read(root)
    found = by_path(listing)
    assert len(found) == 2 * 8 + 5 * 8 + 8
    fake = found["manipulated_sequences/NeuralTextures/c23/videos/054_071.mp4"]
    assert (fake.label, fake.forgery, fake.identity, fake.source_identity) == (1, "neuraltextures", "054", "071")
    assert (fake.split, fake.compression, fake.dataset, fake.kind) == ("train", "c23", "faceforensics", "video")
    assert fake.mask == "manipulated_sequences/NeuralTextures/masks/videos/054_071.mp4"
    real = found["original_sequences/youtube/c23/videos/054.mp4"]
    assert fake.pair == real.video
    assert (real.label, real.forgery, real.identity) == (0, "real", "054")
    c40 = found["manipulated_sequences/Deepfakes/c40/videos/054_071.mp4"]
    assert c40.pair == found["original_sequences/youtube/c40/videos/054.mp4"].video != real.video
    assert not found["manipulated_sequences/FaceShifter/c23/videos/054_071.mp4"].mask  # the authors give none
    split = {item.identity: item.split for item in listing.items}
    assert split == {
        **dict.fromkeys(["071", "054", "087", "081"], "train"), "720": "valid", "672": "valid", "953": "test",
        "974": "test",
    }  # fmt: skip
    assert faults_of(listing) == []
    # c40 was begun, so what else there is of it is missing; raw was not.
    assert set(listing.missing) == {f"manipulated_sequences/{name}/c40/videos/" for name in FORGED[1:]}
    with av.open(str(root / fake.path)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 6


def test_video_names_begin_as_the_official_lists_do(root: Path) -> None:
    """`ffd_continual.protocols` finds the split of a video by what stands before the first sign."""
    assert {item.video.split("-")[0].split("_")[0] for item in read(root).items} == {
        name for part in PAIRS.values() for pair in part for name in pair
    }


def test_wanted(root: Path) -> None:
    listing = read(root, compressions=("c40",), forgeries=("deepfakes",))
    assert {(item.forgery, item.compression) for item in listing.items} == {("real", "c40"), ("deepfakes", "c40")}
    assert listing.missing == ()
    assert listing.lists == ("splits/train.json", "splits/val.json", "splits/test.json")
    with pytest.raises(FFDError, match=r"no forgery 'deepfake'. Did you mean 'deepfakes'\?"):
        read(root, forgeries=("deepfake",))
    with pytest.raises(FFDError, match="no compression 'c24'.* Known: raw, c23, c40"):
        read(root, compressions=("c24",))


def test_partial_download(root: Path) -> None:
    (root / "original_sequences/youtube/c23/videos/071.mp4").unlink()
    (root / "manipulated_sequences/Face2Face/c23/videos/974_953.mp4").unlink()
    for file in (root / "manipulated_sequences/FaceSwap/c23/videos").iterdir():
        file.unlink()
    listing = read(root, compressions=("c23",))
    assert listing.missing == (
        "original_sequences/youtube/c23/videos/071.mp4",
        "manipulated_sequences/Face2Face/c23/videos/974_953.mp4",
        "manipulated_sequences/FaceSwap/c23/videos/",
    )
    lone = [item for item in listing.items if item.identity == "071"]
    assert lone
    assert not any(item.pair for item in lone)
    assert any("no original here" in note for note in listing.notes)


def test_without_split_files(root: Path) -> None:
    for part in PAIRS:
        (root / "splits" / f"{part}.json").unlink()
    listing = read(root)
    assert {item.split for item in listing.items} == {""}
    assert listing.lists == ()
    assert any("no official split files" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("val", '[\n ["720", "672"],\n ["71", "054"]\n]', r"val\.json, line 3: '71' is no video"),
        ("val", '[\n ["720", "672", "001"]]', r"val\.json, line 2: .* is no pair"),
        ("val", '[\n [720, 672]]', r"val\.json, line 2: \[720, 672\] is no pair"),
        ("val", '[["720",\n "672"]', r"val\.json, line 2: is no JSON"),
        ("val", '{"720": "672"}', r"val\.json: is no JSON list"),
        ("val", "[]", r"val\.json: names no video"),
        ("test", '[["953", "974"],\n ["054", "111"]]', r"test\.json, line 2: video 054 is in train\.json, line 2"),
        ("test", '[["953", "953"]]', r"test\.json, line 1: video 953 is in test\.json, line 1"),
        ("test", '[["953", NaN]]', r"test\.json: .*NaN is no JSON number"),
    ],
)  # fmt: skip
def test_wrong_split_files_fail(root: Path, part: str, text: str, message: str) -> None:
    (root / "splits" / f"{part}.json").write_text(text)
    with pytest.raises(FFDError, match=message):
        read(root)


def test_a_missing_split_file_fails(root: Path) -> None:
    (root / "splits/val.json").unlink()
    with pytest.raises(FFDError, match=r"splits: holds train\.json, test\.json, but not val\.json"):
        read(root)


def test_a_clip_across_official_splits_is_left_out(root: Path, plant: Plant, faults_of: Faults) -> None:
    plant(root, "manipulated_sequences/Deepfakes/c23/videos/071_720.mp4")
    listing = read(root)
    assert not any("071_720" in item.path for item in listing.items)
    assert any("not in the same official split" in note and "071_720.mp4" in note for note in listing.notes)
    assert faults_of(listing) == []


def test_sequences_of_one_youtube_video_in_two_splits_are_said(root: Path) -> None:
    """dataset/conversion_dict.json: 755 and 756 are tR7z_H1qPMc; the official lists put them into test and train."""
    assert not any("YouTube" in note for note in read(root).notes)
    (root / "splits/test.json").write_text(json.dumps([["953", "974"], ["755", "759"]]))
    (root / "splits/train.json").write_text(json.dumps([*PAIRS["train"], ["756", "503"], ["766", "767"]]))
    assert any("1 pairs of originals" in note and "755/756;" in note for note in read(root).notes)


def test_extracted_frames_are_read_where_there_is_no_video(root: Path, plant: Plant, by_path: ByPath) -> None:
    (root / "manipulated_sequences/Deepfakes/c23/videos/071_054.mp4").unlink()
    frames = "manipulated_sequences/Deepfakes/c23/images"
    plant(root, f"{frames}/071_054/0000.png", f"{frames}/071_054/0001.png", f"{frames}/054_071/0000.png")
    found = by_path(read(root))
    assert (found[f"{frames}/071_054"].kind, found[f"{frames}/071_054"].mask) == ("frames", "")
    assert f"{frames}/054_071" not in found  # the video is there


def test_hostile_names_are_left_out_and_said(
    root: Path, plant: Plant, tmp_path_factory: pytest.TempPathFactory
) -> None:
    videos = root / "manipulated_sequences/Deepfakes/c23/videos"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    plant(elsewhere, "111_222.mp4")
    (videos / "111_222.mp4").symlink_to(elsewhere / "111_222.mp4")
    (videos / "._071_054.mp4").write_bytes(b"")
    plant(root, f"{videos.relative_to(root)}/071\n054.mp4", f"{videos.relative_to(root)}/extra.mp4")
    listing = read(root)
    assert len(listing.items) == 64
    notes = "\n".join(listing.notes)
    assert "leads out" in notes
    assert "control character" in notes
    assert "071\\n054.mp4" in notes
    assert "extra.mp4" in notes
    assert "._071" not in notes


def test_what_is_not_there_is_taught(tmp_path: Path) -> None:
    with pytest.raises(FFDError, match=r"does not exist.*unpacked"):
        read(tmp_path / "none")
    (tmp_path / "Celeb-real").mkdir()
    with pytest.raises(FFDError, match=r"expected one of original_sequences.*it holds Celeb-real"):
        read(tmp_path)


def test_one_folder_above_is_accepted(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    above = tmp_path_factory.mktemp("above")
    root.rename(above / "FaceForensics++")
    listing = read(above)
    assert len(listing.items) == 64
    assert {item.split for item in listing.items} == {"train", "valid", "test"}
    (above / "FaceForensics++").rename(root)


ACTORS = (
    "original_sequences/actors/c23/videos/01__meeting_serious.mp4",
    "original_sequences/actors/c23/videos/02__kitchen_pan.mp4",
    "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__meeting_serious__YVGY8LOK.mp4",
    "manipulated_sequences/DeepFakeDetection/c23/videos/02_03__exit_phone_room__4ZT7QOLC.mp4",
    "manipulated_sequences/DeepFakeDetection/masks/videos/01_02__meeting_serious__YVGY8LOK.mp4",
)


def test_actors_are_a_data_set_of_their_own(root: Path, plant: Plant, faults_of: Faults, by_path: ByPath) -> None:
    plant(root, *ACTORS)
    assert {item.dataset for item in read(root).items} == {"faceforensics"}
    assert any("ffd prepare dfd" in note for note in read(root).notes)
    both = read(root, forgeries=("deepfakes", "deepfakedetection"))
    assert {item.forgery for item in both.items} == {"real", "deepfakes", "deepfakedetection"}
    alone = read(root, "dfd")
    assert {item.path for item in alone.items} == set(ACTORS[:4])
    fake = by_path(alone)[ACTORS[2]]
    assert (fake.label, fake.forgery, fake.identity, fake.source_identity) == (1, "deepfakedetection", "01", "02")
    assert (fake.pair, fake.mask) == (by_path(alone)[ACTORS[0]].video, ACTORS[4])
    assert (fake.dataset, fake.compression, fake.split) == ("dfd", "c23", "")
    other = by_path(alone)[ACTORS[3]]
    assert (other.identity, other.pair, other.mask) == ("02", "", "")
    assert any("no official split" in note for note in alone.notes)
    assert faults_of(alone) == []


@pytest.mark.parametrize(
    ("real", "forged", "level"),
    [("actors/c40/videos", "DeepFakeDetection/c40/videos", "c40"),
     ("DFD_original_sequences", "DFD_manipulated_sequences/DFD_manipulated_sequences", "")],
)  # fmt: skip
def test_actors_alone(tmp_path: Path, plant: Plant, real: str, forged: str, level: str) -> None:
    plant(tmp_path, f"{real}/01__meeting_serious.mp4", f"{forged}/01_02__meeting_serious__YVGY8LOK.mp4")
    plant(tmp_path, f"{forged}/strange.mp4")
    listing = read(tmp_path, "dfd")
    assert [(item.label, item.compression) for item in listing.items] == [(0, level), (1, level)]
    assert listing.items[1].pair == listing.items[0].video
    assert any("strange.mp4" in note for note in listing.notes)


def test_actors_alone_half(tmp_path: Path, plant: Plant) -> None:
    plant(tmp_path, ACTORS[0])
    assert read(tmp_path, "dfd").missing == ("manipulated_sequences/DeepFakeDetection/c23/videos/",)
    with pytest.raises(FFDError, match="has no forgery 'deepfakes'"):
        read(tmp_path, "dfd", forgeries=("deepfakes",))
