"""KoDF (Kwon et al., ICCV 2021): Korean speakers, swapped and reenacted by six models.

The authors' release sorts clips into original_videos and synthesized_videos/MODEL; AI-Hub's archives have the words for
"original" and "manipulated" and the model in the names of their folders. Metadata (CSV) name each forged clip's target
video, its model and the persons; without them only label and model are known.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.remarks import crossing, without_pair
from ffd_continual.scenarios.datasets.tree import VIDEO_SUFFIXES, Tree, bad_list, chosen, stem

ABOUT = About(
    title="KoDF",
    citation="P. Kwon, J. You, G. Nam, S. Park, G. Chae: KoDF: A Large-Scale Korean DeepFake Detection Dataset. "
    "ICCV 2021.",
    terms="by the authors' form, or AI-Hub's agreement for residents of Korea: research, no passing on.",
    url="https://deepbrainai-research.github.io/kodf/",
    layout="""\
ROOT/                                            (kodf_release)
  original_videos/PERSON/200715_PERSON_1.mp4
  synthesized_videos/{dffs,dfl,fo,fsgan,audio-driven}/.../*.mp4
or AI-Hub's folders, with 원본 (original) or 변조 (manipulated) and the model
in their names, such as
  train_원본/..., [원천][변조]train_dffs1_data/...
and anywhere below
  {원본영상,변조영상}_{training,validation,test}_메타데이터.csv
  (영상ID; of manipulated ones 변조모델, 타겟영상; UUIDs of the persons)""",
    source="as code that reads it has it (HanMoonSub/DeepGuard, preprocess/kodf; paths kodf_release/original_videos "
    "and synthesized_videos elsewhere); not verified against a download",
)
FORGERIES = ("dffs", "dfl", "fo", "fsgan", "audio-driven")
DATASET = "kodf"
_MODEL = re.compile(r"(?<![a-z])(dffs|dfl|fsgan|fo|audio[-_ ]?driven)(?![a-z])")
_PERSON = re.compile(r"[0-9]{6}_([0-9A-Za-z-]{8,})_[0-9]+")  # date_person_number
_LISTS = {"training": "train", "validation": "valid", "test": "test"}
_REAL, _FORGED = ("original_videos", "원본"), ("synthesized_videos", "변조")
_COLUMNS = {  # what it is -> its spellings
    "video": ("영상ID", "영상_ID", "파일명"),
    "model": ("변조모델",),
    "target": ("타겟영상", "타깃영상"),
    "owner": ("타겟UUID", "타깃UUID", "UUID"),
    "source": ("소스UUID",),
    "gender": ("인물성별",),
}
_ADVICE = "Take the metadata as they were downloaded."


@dataclass(frozen=True)
class _Row:
    """What the metadata say of one clip; `forgery` is "real" for an original."""

    forgery: str
    split: str
    target: str = ""
    identity: str = ""
    source: str = ""
    gender: str = ""


def model_of(text: str) -> str:
    """The model named in a path or a cell, "" where none is."""
    found = _MODEL.search(text.lower())
    return "" if not found else "audio-driven" if found[1].startswith("audio") else found[1]


def _person(video: str) -> str:
    found = _PERSON.fullmatch(video)
    return found[1] if found else ""


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text)  # file systems may keep the syllables in parts


def read_metadata(tree: Tree, paths: Sequence[str]) -> dict[str, _Row]:
    """Clip -> its row, from all metadata files. Raises FFDError with file and line for a row that cannot be."""
    rows: dict[str, _Row] = {}
    place: dict[str, str] = {}
    for path in paths:
        name = _plain(PurePosixPath(path).name)
        split = next((split for word, split in _LISTS.items() if word in name), "")
        forged = "변조영상" in name
        for line, cells in tree.table(path, ["영상ID", *(["변조모델", "타겟영상"] if forged else [])]):
            values = {what: next((cells[c] for c in names if cells.get(c)), "") for what, names in _COLUMNS.items()}
            video, target = stem(values["video"]), stem(values["target"]) if forged else ""
            forgery = model_of(values["model"]) if forged else "real"
            if not video or not forgery:
                wrong = "names no clip (영상ID)" if not video else f"{ascii(values['model'][:40])} is no model of KoDF"
                raise bad_list(tree.root / path, line, wrong, _ADVICE)
            if video in place:
                raise bad_list(tree.root / path, line, f"{ascii(video)} is in {place[video]} already", _ADVICE)
            owner = values["owner"] or _person(target or video)
            rows[video] = _Row(forgery, split, target, owner, values["source"] if forged else "", values["gender"])
            place[video] = f"{path}, line {line}"
    return rows


def _forgery(path: str) -> str:
    """By the folders: "real", a model, "forged" where no model is named, "" where neither kind of folder is.

    The innermost folder with a mark counts: the name of the whole data set on AI-Hub has the word for manipulated too.
    """
    parts = [_plain(part) for part in PurePosixPath(path).parts[:-1]]
    for at in range(len(parts) - 1, -1, -1):
        if any(mark in parts[at] for mark in _FORGED):
            return model_of("/".join(parts[at:])) or "forged"
        if any(mark in parts[at] for mark in _REAL):
            return "real"
    return ""


def index(root: Path, wanted: Wanted) -> Listing:
    """All clips. Raises FFDError for a tree without any, and for metadata that contradict themselves or the folders."""
    tree = Tree(root, ABOUT.title)
    models = chosen(wanted.forgeries, FORGERIES, "forgery", ABOUT.title)
    chosen(wanted.compressions, (), "compression", ABOUT.title)
    found = tree.walk("", VIDEO_SUFFIXES | {".csv"})
    lists = [p for p in found if p.lower().endswith(".csv") and re.search("원본영상|변조영상", _plain(p))]
    rows = read_metadata(tree, lists)
    clips: dict[str, tuple[str, str]] = {}
    for path in found:
        name, forgery = stem(path), _forgery(path)
        if path.lower().endswith(".csv"):
            continue
        if name in clips:
            tree.leave_out(path, "another clip has that name")
        elif not forgery and name not in rows:
            tree.leave_out(path, "neither below original_videos nor synthesized_videos, nor in the metadata")
        elif forgery not in ("", "forged", rows[name].forgery if name in rows else forgery):
            wrong = f"{path} is {forgery} by its folder and {rows[name].forgery} by the metadata"
            raise bad_list(tree.root, None, wrong, "Move the file, or take the metadata as they were downloaded.")
        else:
            clips[name] = (path, rows[name].forgery if name in rows else forgery)
    if not clips:
        raise tree.nothing("clips below original_videos and synthesized_videos")
    items = [
        _item(name, path, forgery, rows.get(name), clips)
        for name, (path, forgery) in clips.items()
        if forgery in ("real", "forged", *models)
    ]
    absent = [f"{name}.mp4" for name, row in rows.items() if name not in clips and row.forgery in ("real", *models)]
    return Listing(tuple(items), tuple(absent), (*_notes(items, rows), *tree.notes))


def _item(name: str, path: str, forgery: str, row: _Row | None, clips: Mapping[str, tuple[str, str]]) -> Item:
    row = row or _Row(forgery, "")
    real = forgery == "real"
    return Item(
        path=path,
        label=int(not real),
        forgery=forgery,
        video=name,
        split=row.split,
        identity=row.identity or (_person(name) if real else ""),
        source_identity=row.source,
        pair=row.target if clips.get(row.target, ("", ""))[1] == "real" else "",
        dataset=DATASET,
        extra={"gender": row.gender} if row.gender else {},
    )


def _notes(items: Sequence[Item], rows: Mapping[str, _Row]) -> list[str]:
    notes = []
    if not rows:
        notes.append(
            "no metadata (원본영상_..., 변조영상_...csv): splits, pairs and persons of forged clips are unknown"
        )
    elif bare := [item.path for item in items if item.video not in rows]:
        notes.append(f"{len(bare)} clip(s) are in no metadata, such as {bare[0]}")
    return notes + crossing(items) + (without_pair(items) if rows else [])
