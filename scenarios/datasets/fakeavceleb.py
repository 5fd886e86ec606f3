"""FakeAVCeleb (Khalid et al., NeurIPS 2021): celebrities of VoxCeleb2 with forged video, forged speech or both.

meta_data.csv names each clip's person, method and folder. RealVideo-FakeAudio is left out: its pictures are those of
the real videos, and here it is faces that are judged.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.remarks import without_pair
from ffd_continual.scenarios.datasets.tree import Tree, bad_list, chosen, join, stem, unsafe

ABOUT = About(
    title="FakeAVCeleb",
    citation="H. Khalid, S. Tariq, M. Kim, S. S. Woo: FakeAVCeleb: A Novel Audio-Video Multimodal Deepfake Dataset. "
    "NeurIPS Datasets and Benchmarks 2021.",
    terms="by the authors' request form: research, no passing on.",
    url="https://github.com/DASH-Lab/FakeAVCeleb",
    layout="""\
ROOT/                                             (FakeAVCeleb_v1.2)
  meta_data.csv
    source,target1,target2,method,category,type,race,gender,FILE,FOLDER
  RealVideo-RealAudio/African/men/id00076/00109.mp4
  FakeVideo-{RealAudio,FakeAudio}/African/men/id00076/
    00109_10_id00476_wavtolip.mp4
  RealVideo-FakeAudio/...     (not read: pictures of the real videos)""",
    source="documentation at https://sites.google.com/view/fakeavcelebdash-lab; columns of meta_data.csv as code that "
    "reads it has them, not verified against a download",
)
LIST = "meta_data.csv"
DATASET = "fakeavceleb"
FORGERIES = ("faceswap", "fsgan", "wav2lip", "faceswap-wav2lip", "fsgan-wav2lip")
_TYPES = ("RealVideo-RealAudio", "RealVideo-FakeAudio", "FakeVideo-RealAudio", "FakeVideo-FakeAudio")
_FIRST = ("source", "target1", "target2", "method", "category", "type", "race", "gender")
_ADVICE = f"Take {LIST} as it was downloaded."


@dataclass(frozen=True)
class _Row:
    line: int
    source: str
    target: str
    method: str
    type: str
    race: str
    gender: str
    path: str  # below the data set's folder


def read_list(tree: Tree, home: str) -> Iterator[_Row]:
    """The rows of meta_data.csv. Raises FFDError with the line of a row that is not the official list's.

    Its header has a name less than its rows have cells: `path` stands over the file's name, nothing over its folder.
    """
    path = join(home, LIST)
    where = tree.root / path
    reader = csv.reader(tree.text(path).splitlines())
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise bad_list(where, reader.line_num, f"is no CSV ({error})", _ADVICE) from error
    header = tuple(cell.strip() for cell in lines[0][1][: len(_FIRST)]) if lines else ()
    if header != _FIRST:
        raise bad_list(where, 1, f"the header is not {','.join(_FIRST)},path", _ADVICE)
    for line, cells in lines[1:]:
        values = [cell.strip() for cell in cells]
        if len(values) < 10:
            raise bad_list(where, line, f"has {len(values)} cells and needs 10", _ADVICE)
        source, target, _, method, _, kind, race, gender, file, folder = values[:10]
        place = PurePosixPath(folder).parts
        if kind not in _TYPES or kind not in place:
            wrong = f"type {ascii(kind[:40])} is not the folder's, {ascii(folder[:80])}"
            raise bad_list(where, line, wrong, _ADVICE)
        forged, known = kind.startswith("FakeVideo"), method.lower() in FORGERIES
        if forged != known and kind != "RealVideo-FakeAudio":
            wrong = f"method {ascii(method[:40])} in {kind}"
            raise bad_list(where, line, wrong, _ADVICE)
        below = "/".join((*place[place.index(kind) :], file))
        if why := unsafe(below):
            tree.leave_out(below, f"the name {why}")
            continue
        yield _Row(line, source, target, method.lower(), kind, race, gender, below)


def index(root: Path, wanted: Wanted) -> Listing:
    """All clips that meta_data.csv names and the disk has, RealVideo-FakeAudio left out.

    Raises FFDError without meta_data.csv, and where it is not the official list.
    """
    tree = Tree(root, ABOUT.title)
    methods = chosen(wanted.forgeries, FORGERIES, "forgery", ABOUT.title)
    chosen(wanted.compressions, (), "compression", ABOUT.title)
    home = tree.home(LIST)
    rows: dict[str, _Row] = {}
    doubled: list[str] = []
    unread = 0
    for row in read_list(tree, home):
        if row.type == "RealVideo-FakeAudio":
            unread += 1
        elif row.method not in ("real", *methods):
            continue
        elif row.path in rows:
            doubled += [row.path] if rows[row.path].method != row.method else []
        else:
            rows[row.path] = row
    there: set[str] = set()
    for folder in sorted({path.rpartition("/")[0] for path in rows}):
        there |= {clip.path for clip in tree.clips(join(home, folder)).values()}
    here = {path: row for path, row in rows.items() if join(home, path) in there}
    items = [_item(row, join(home, path), here) for path, row in here.items()]
    missing = [join(home, path) for path in rows if join(home, path) not in there]
    if not items:
        raise tree.nothing("clips of meta_data.csv such as RealVideo-RealAudio/African/men/id00076/00109.mp4")
    notes = ["no official list of a split"]
    if unread:
        notes.append(f"{unread} clip(s) of RealVideo-FakeAudio are not read: their pictures are those of real videos")
    if doubled:
        notes.append(
            f"{LIST} names {len(doubled)} file(s) twice with two methods, such as {doubled[0]}: the first counts"
        )
    return Listing(tuple(items), tuple(missing), (*notes, *without_pair(items), *tree.notes))


def _item(row: _Row, path: str, here: Mapping[str, _Row]) -> Item:
    forged = row.method != "real"
    parts = PurePosixPath(row.path)
    original = join("RealVideo-RealAudio", *parts.parts[1:-1], f"{parts.stem.split('_')[0]}.mp4")
    # Lips that follow a voice lend nobody's face: only swaps have a source.
    swapped = forged and row.method != "wav2lip" and re.fullmatch(r"id[0-9]+", row.target)
    return Item(
        path=path,
        label=int(forged),
        forgery=row.method,
        video=_video(row.path),
        identity=row.source,
        source_identity=row.target if swapped else "",
        pair=_video(original) if forged and original in here else "",
        dataset=DATASET,
        extra={"race": row.race, "gender": row.gender, "category": row.type},
    )


def _video(path: str) -> str:
    parts = PurePosixPath(path).parts
    return "-".join((parts[-2], stem(path), parts[0]))
