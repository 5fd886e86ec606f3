"""`ffd prepare`: a data set as its authors ship it, into face crops and a manifest."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

import pandas as pd

from ffd_continual.scenarios.datasets.listing import About, Wanted, adapter, adapters
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.prepare.prepare import Prepared, prepare_listing
from ffd_continual.scenarios.prepare.settings import MASKS, SUFFIX, PrepareConfig
from ffd_continual.scenarios.prepare.shards import SHARD_BYTES
from ffd_continual.scenarios.subgroups import join_people, read_people
from ffd_continual.terminal import WIDTH, wrapped

SHOWN = 8
_SPLITS = (("train", "train"), ("valid", "valid"), ("test", "test"), ("", "none"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments, defaults those of `PrepareConfig`."""
    default = PrepareConfig()
    known = ", ".join(adapters())
    parser.add_argument("dataset", metavar="DATASET", help=f"which data set: {known}")
    parser.add_argument("root", nargs="?", type=Path, metavar="ROOT", help="folder it was unpacked to")
    parser.add_argument("--out", type=Path, help="folder for crops and manifest; unfinished work in it goes on")
    parser.add_argument("--about", action="store_true", help="print terms, source and expected layout, and end")
    parser.add_argument("--compressions", default="", help="comma-separated, such as raw,c23,c40 (default: all there)")
    parser.add_argument("--forgeries", default="", help="comma-separated (default: all there)")
    parser.add_argument("--frames", type=int, default=default.frames, help="of each video (default %(default)s)")
    parser.add_argument("--faces", type=int, default=default.faces, help="per frame, at most (default %(default)s)")
    parser.add_argument("--size", type=int, default=default.size, help="side of the crops, px (default %(default)s)")
    parser.add_argument("--enlarge", type=float, default=default.enlarge, help="of the box (default %(default)s)")
    parser.add_argument("--smallest", type=int, default=default.smallest, help="face box, px (default %(default)s)")
    parser.add_argument("--format", choices=tuple(SUFFIX), default=default.form, help="default %(default)s")
    parser.add_argument("--quality", type=int, default=default.quality, help="JPEG, WebP (default %(default)s)")
    parser.add_argument("--shard-mb", type=int, default=SHARD_BYTES // 2**20, help="tar shards (default %(default)s)")
    parser.add_argument(
        "--masks",
        choices=MASKS,
        default=default.masks,
        help="of forgeries without masks: left to the manifest's pairs, or written by difference or ssim",
    )
    parser.add_argument(
        "--split-by",
        choices=("identity", "video", "test"),
        default="identity",
        help="where splits are empty; test: all of it is for testing (default %(default)s)",
    )
    parser.add_argument("--people", type=Path, metavar="CSV", help="table by identity or video: skin, age, sex, ...")
    parser.add_argument("--seed", type=int, default=0, help="of those splits (default %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default %(default)s); same bytes for any")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def run(args: argparse.Namespace) -> int:
    """Index, prepare, print a summary; raises FFDError for what the user must mend."""
    chosen = adapter(args.dataset)
    if args.about:
        print(about(chosen.ABOUT))
        return 0
    if args.root is None or args.out is None:
        raise FFDError(f"`ffd prepare {args.dataset} ROOT --out OUT` needs both folders; --about tells ROOT's layout.")
    if not args.root.is_dir():
        raise FFDError(f"there is no folder {args.root}. Give the folder that the data set was unpacked to.")
    if args.workers < 1 or args.shard_mb < 1:
        raise FFDError("--workers and --shard-mb must be 1 or more.")
    config = PrepareConfig(
        frames=args.frames,
        faces=args.faces,
        size=args.size,
        enlarge=args.enlarge,
        smallest=args.smallest,
        form=args.format,
        quality=args.quality,
        masks=args.masks,
    )
    try:
        listing = chosen.index(args.root, Wanted(_names(args.compressions), _names(args.forgeries)))
        if args.people is not None:
            listing = join_people(listing, read_people(args.people))
        prepared = prepare_listing(
            listing,
            args.root,
            args.out,
            args.dataset,
            config,
            workers=args.workers,
            seed=args.seed,
            split_by=args.split_by,
            shard_bytes=args.shard_mb * 2**20,
            progress=not args.quiet,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("The same `ffd prepare` command goes on where it stopped.") from None
    print(summary(prepared, args.out))
    return 0


def about(told: About) -> str:
    """A data set's card on a terminal."""
    head = wrapped(
        f"{told.title}\n\n{told.citation}\nterms: {told.terms}\nfrom: {told.url}\nlayout after: {told.source}"
    )
    return f"{head}\n\n{told.layout.rstrip()}"


def _cell(text: str, width: int) -> str:
    """A name as one printable word of at most `width` columns."""
    plain = "".join(sign if sign.isprintable() else "?" for sign in text)
    return plain if len(plain) <= width else plain[: width - 3] + "..."


def counts(table: pd.DataFrame) -> list[str]:
    """Faces by forgery and split, and the videos they come from, as lines of a table."""
    shown = [(split, word) for split, word in _SPLITS if split or (table["split"] == "").any()]
    lines = [f"{'forgery':<28}" + "".join(f"{word:>9}" for _, word in shown) + f"{'videos':>9}"]
    for forgery in table["forgery"].unique():
        rows = table[table["forgery"] == forgery]
        cells = "".join(f"{int((rows['split'] == split).sum()):>9}" for split, _ in shown)
        videos = rows.loc[rows["video"] != "", "video"].nunique()
        lines.append(f"{_cell(str(forgery), 27):<28}{cells}{videos or '-':>9}")
    return lines


def summary(prepared: Prepared, out: Path) -> str:
    """What was made in at most 80 columns: counts, what failed and why, what is missing, and what comes next."""
    table = prepared.table
    lines = counts(table)
    lines.append(f"{len(table)} faces of {prepared.items} items, {prepared.made} of them worked on now")
    masked = int(((table["label"] == 1) & (table["mask"] != "")).sum())
    paired = int(((table["label"] == 1) & (table["mask"] == "") & (table["pair"] != "")).sum())
    forged = int((table["label"] == 1).sum())
    if forged:
        rest = forged - masked - paired
        lines.append(f"masks: {masked} written, {paired} made from pairs when a run reads them, {rest} unknown")
    failed = [one for one in prepared.failed if one[2] == 0]
    partly = len(prepared.failed) - len(failed)
    if prepared.failed:
        lines.append(f"{len(failed)} failed, {partly} used in part; all are in {out / 'failed.csv'}:")
        causes = Counter(_cell(cause, 68) for _, cause, _ in prepared.failed)
        lines += [f"  {number:>7} {cause}" for cause, number in causes.most_common(SHOWN)]
        lines += [f"  and {len(causes) - SHOWN} more causes"] if len(causes) > SHOWN else []
    if prepared.missing:
        lines.append(f"{len(prepared.missing)} files of the official listing are missing: {out / 'missing.csv'}")
        lines += [f"  {_cell(path, WIDTH - 2)}" for path in prepared.missing[:3]]
    lines += [f"note: {note}" for note in prepared.notes]
    lines.append(f"manifest: {prepared.manifest}")
    lines.append(f"next: ffd check {_quoted(out)}")
    lines.append(f"then: ffd run CONFIG --data {_quoted(out)} (`ffd list configs`)")
    return "\n".join(_wrapped_line(line) for line in lines)


def _quoted(path: Path) -> str:
    text = os.fspath(path)
    return f'"{text}"' if " " in text else text


def _wrapped_line(line: str) -> str:
    """Tables keep their blanks; only longer lines are wrapped."""
    return line if len(line) <= WIDTH else wrapped(line)
