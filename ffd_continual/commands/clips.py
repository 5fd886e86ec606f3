"""`ffd clips`: portraits as short video clips with forged counterparts, laid out as FaceForensics++ is."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.forging.portraits import IDENTITY, Portraits, parse_source
from ffd_continual.scenarios.prepare.clip_camera import CameraConfig
from ffd_continual.scenarios.prepare.clips import FAMILIES, ClipsConfig, ClipsMade, make_clips
from ffd_continual.scenarios.studio_set import studio_portraits
from ffd_continual.scenarios.subgroups import FILE as PEOPLE
from ffd_continual.terminal import wrapped

SHOWN, STUDIO = 5, "studio"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments, defaults those of `ClipsConfig`."""
    default, camera = ClipsConfig(), CameraConfig()
    usual = ",".join(f"{method}={family}" for method, family in FAMILIES)
    parser.add_argument(
        "portraits", nargs="+", metavar="[NAME=]DIR", help="of real portraits, searched deep; or: studio"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the clips; an unfinished one goes on")
    parser.add_argument("--families", default=usual, help="FORGERY=FAMILY,...; default: %(default)s")
    parser.add_argument("--compressions", default=",".join(default.compressions), help="default: %(default)s")
    parser.add_argument("--people", type=int, default=None, help="persons, the first by name (default: all, 1000)")
    parser.add_argument("--frames", type=int, default=camera.frames, help="of a clip, at 25 a second (%(default)s)")
    parser.add_argument("--height", type=int, default=camera.height, help="of the video, px (default %(default)s)")
    parser.add_argument("--seed", type=int, default=default.seed, help="default %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="processes (default %(default)s); same bytes for any")
    parser.add_argument("--identity-pattern", default=IDENTITY, help="first group in the file's stem is the person")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> int:
    """Make the clips, then print a summary; raises FFDError for what the user must mend."""
    sources = [_source(text, args) for text in args.portraits]
    config = ClipsConfig(
        families=_families(args.families),
        compressions=tuple(name.strip() for name in args.compressions.split(",") if name.strip()),
        people=args.people,
        seed=args.seed,
        workers=args.workers,
        progress=not args.quiet,
        camera=CameraConfig(height=args.height, frames=args.frames),
    )
    try:
        made = make_clips(sources, args.out, config)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("The same `ffd clips` command goes on where it stopped.") from None
    print(wrapped(summary(made, config, args.out)))
    return 0


def _source(text: str, args: argparse.Namespace) -> Portraits:
    """A folder of portraits; for "studio", of rendered ones, written beside --out."""
    if text == STUDIO and not Path(text).is_dir():
        if args.people is None or not 6 <= args.people <= 1000:
            raise FFDError("say how many people the studio shall render: ffd clips studio --people 40 (6 to 1000)")
        folder = args.out.with_name(f"{args.out.name}_portraits")
        # Rendered at the size of the video, so that nothing is enlarged.
        studio_portraits(folder, args.people, args.seed, max(args.height, 64), args.workers, not args.quiet)
        return Portraits(folder, STUDIO)
    return replace(parse_source(text), identity=args.identity_pattern)


def _families(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for one in text.split(","):
        method, equals, family = one.strip().partition("=")
        if not equals or not family:
            raise FFDError(f"--families {one.strip()!r} is no FORGERY=FAMILY, such as deepfakes=swap")
        pairs.append((method.strip().lower(), family.strip()))
    return tuple(pairs)


def summary(made: ClipsMade, config: ClipsConfig, out: Path) -> str:
    """Who and how many, what was left out, and what to do next."""
    cast = made.cast
    pairs = ", ".join(f"{len(pairs)} {split}" for split, pairs in cast.pairs.items())
    lines = [
        f"{len(cast.people)} people in pairs: {pairs}",
        f"{made.made + made.kept} clips ({made.made} now, {made.kept} before) in {', '.join(config.compressions)}",
    ]
    for title, names in (
        ("no face found in", [str(path) for path in cast.faceless]),
        ("cannot be read:", [str(path) for path, _ in cast.unreadable]),
        ("nobody fits to be swapped with", cast.alone),
        *((f"{method} declined", clips) for method, clips in made.declined.items()),
    ):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"{title} {', '.join(names[:SHOWN])}{more}")
    lines.append("forged files are marked as forged in their metadata")
    known = f" --people {out / PEOPLE}" if (out / PEOPLE).is_file() else ""
    lines.append(f"next: ffd prepare faceforensics {out} --out data/faceforensics{known}")
    return "\n".join(lines)
