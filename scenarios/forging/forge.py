"""A folder of forged faces from folders of real portraits: crops, forgeries, masks and the manifest.

Layout: OUT/real/NAME.jpg, OUT/<family>/NAME.jpg, OUT/masks/<family>/NAME.png, OUT/manifest.parquet. Real and forged
faces share crop, working size, final reduction and compression; forged files are marked in their metadata. A stopped
run goes on where it stopped: OUT/forge.jsonl notes every finished face, and its first line the settings, which must
stay the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face, Points
from ffd_continual.scenarios.forging.contract import FAMILIES, load_family
from ffd_continual.scenarios.forging.making import finish_face, forge_faces, split_people, working_size
from ffd_continual.scenarios.forging.portraits import Collected, Portrait, Portraits, collect_portraits
from ffd_continual.scenarios.manifest import write_manifest
from ffd_continual.scenarios.pictures import write_mask, write_picture

JOURNAL = "forge.jsonl"


@dataclass(frozen=True)
class ForgeConfig:
    """What to make. `per_family` None: every face by every family; `suffix` ".jpg" (4:4:4, `quality`) or ".png"."""

    families: tuple[str, ...] = FAMILIES
    size: int = 128
    seed: int = 0
    workers: int = 1
    per_family: int | None = None
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    suffix: str = ".jpg"
    quality: int = 95
    skip_bad: bool = False
    progress: bool = True


@dataclass(frozen=True)
class ForgedDataset:
    """Where the manifest lies, its rows, and what was left out."""

    manifest: Path
    table: pd.DataFrame
    collected: Collected
    declined: dict[str, int]


def forge_dataset(sources: Sequence[Portraits], out: Path, config: ForgeConfig | None = None) -> ForgedDataset:
    """Forge the portraits of `sources` into the folder `out`; deterministic, restartable.

    Raises FFDError for unreadable pictures (unless `skip_bad`), when no face is found, fewer than three people are, or
    `out` holds a run of other settings.
    """
    config = config or ForgeConfig()
    _check(config)
    collected = collect_portraits(sources, working_size(config.size), config.workers, config.progress)
    if collected.unreadable and not config.skip_bad:
        shown = "; ".join(reason for _, reason in collected.unreadable[:3])
        raise FFDError(f"{len(collected.unreadable)} picture(s) cannot be read: {shown}; mend them, or pass --skip-bad")
    if not collected.portraits:
        raise FFDError("no face was found in any picture: are these portraits, upright and at least 60 px wide?")
    table, declined = forge_portraits(collected.portraits, out, config)
    return ForgedDataset(out / "manifest.parquet", table, collected, declined)


def forge_portraits(
    portraits: Sequence[Portrait], out: Path, config: ForgeConfig
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Forge faces that are cut out already into the folder `out`: (rows of its manifest, declined by family)."""
    journal = _Journal(out, config, portraits)
    faces = [portrait.face for portrait in portraits]
    splits = split_people([face.identity for face in faces], config.seed, config.fractions)
    rows: dict[tuple[str, str], str | None] = {("real", face.name): "" for face in faces}
    for face in faces:
        path = out / "real" / f"{face.name}{config.suffix}"
        if not path.is_file():
            write_picture(path, finish_face(face, config.size).image, quality=config.quality)
    finished = journal.finished()
    made_faces = forge_faces(
        faces,
        splits,
        config.families,
        seed=config.seed,
        size=config.size,
        workers=config.workers,
        per_family=config.per_family,
        done=finished.keys(),
        progress=config.progress,
    )
    with closing(made_faces), journal.opened() as write:  # closed: its processes end before an error is reported
        for made in made_faces:
            name = faces[made.index].name
            if made.forged is not None:
                picture = out / made.forgery / f"{name}{config.suffix}"
                write_mask(out / "masks" / made.forgery / f"{name}.png", made.forged.mask)
                write_picture(picture, made.forged.image, made.forgery, config.quality)
            source = made.forged.source_identity if made.forged else None
            finished[made.forgery, name] = source
            write.write(json.dumps({"forgery": made.forgery, "name": name, "source": source}) + "\n")
            write.flush()
    names = [load_family(one).name for one in config.families]
    rows |= {key: source for key, source in finished.items() if source is not None and key[0] in names}
    declined = {one: sum(k[0] == one and s is None for k, s in finished.items()) for one in names}
    table = _table(out, config, portraits, splits, rows)
    return write_manifest(table, out / "manifest.parquet").table, declined


def landmarks_text(landmarks: Points) -> str:
    """The manifest's JSON list of [x, y] pairs, hundredths of a pixel."""
    return json.dumps([[round(float(x), 2), round(float(y), 2)] for x, y in landmarks], separators=(",", ":"))


def _check(config: ForgeConfig) -> None:
    if not 32 <= config.size <= 1024:
        raise FFDError(f"--size {config.size} is out of range: choose 32 to 1024 pixels")
    if config.per_family is not None and config.per_family < 1:
        raise FFDError(f"--per-family {config.per_family} makes nothing: choose 1 or more")
    if config.suffix not in (".jpg", ".png"):
        raise FFDError(f"suffix {config.suffix!r} is not offered: choose .jpg or .png")
    if not config.families or len(set(config.families)) < len(config.families):
        raise FFDError(f"families must be named once each, at least one; known are {', '.join(FAMILIES)}")


class _Journal:
    """The list of finished faces, one JSON object a line; the first line holds the run's settings."""

    def __init__(self, out: Path, config: ForgeConfig, portraits: Sequence[Portrait]) -> None:
        self.path, self.out, self.suffix = out / JOURNAL, out, config.suffix
        pictures = hashlib.sha256()
        for portrait in portraits:
            pictures.update(portrait.face.name.encode() + portrait.face.image.tobytes())
        self.settings = {
            "seed": config.seed,
            "size": config.size,
            "suffix": config.suffix,
            "quality": config.quality,
            "fractions": list(config.fractions),
            "portraits": pictures.hexdigest(),
        }
        try:
            out.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                if any(out.iterdir()):
                    raise FFDError(f"{out} is not empty and holds no unfinished run: choose another folder for --out")
                self.path.write_text(json.dumps(self.settings) + "\n", "utf-8")
            first = self.path.read_text("utf-8").split("\n", 1)[0]
        except OSError as error:
            raise FFDError(f"cannot write into {out}: {error.strerror}; choose another folder for --out") from error
        try:
            before = json.loads(first)
        except json.JSONDecodeError as error:
            raise FFDError(f"{self.path} is damaged: delete {out} and forge again") from error
        changed = [key for key, value in self.settings.items() if before.get(key) != value]
        if changed:
            raise FFDError(f"{out} holds faces forged with another {', '.join(changed)}: choose another folder")

    def finished(self) -> dict[tuple[str, str], str | None]:
        """(forgery, name) -> source person, or None where the family declined; only what lies on the disk."""
        result: dict[tuple[str, str], str | None] = {}
        for line in self.path.read_text("utf-8").splitlines()[1:]:
            try:
                row = json.loads(line)
                key, source = (str(row["forgery"]), str(row["name"])), row["source"]
            except (json.JSONDecodeError, KeyError, TypeError):  # the last line of a killed run
                continue
            if source is None or (self.out / key[0] / f"{key[1]}{self.suffix}").is_file():
                result[key] = source
        return result

    def opened(self) -> TextIO:
        """The file, to append to."""
        return self.path.open("a", encoding="utf-8")


def _table(
    out: Path,
    config: ForgeConfig,
    portraits: Sequence[Portrait],
    splits: Sequence[str],
    rows: dict[tuple[str, str], str | None],
) -> pd.DataFrame:
    """The manifest's rows: real faces first, then family by family, each in the portraits' order."""
    order = ["real", *(load_family(one).name for one in config.families)]
    lines = []
    for forgery in order:
        for portrait, split in zip(portraits, splits, strict=True):
            face: Face = portrait.face
            if (forgery, face.name) not in rows:
                continue
            path = f"{forgery}/{face.name}{config.suffix}"
            scale = config.size / face.image.shape[0]
            forged = forgery != "real"
            lines.append(
                {
                    "path": path,
                    "label": int(forged),
                    "forgery": forgery,
                    "dataset": portrait.dataset,
                    "split": split,
                    "identity": face.identity,
                    "source_identity": rows[forgery, face.name] or "",
                    "pair": f"real/{face.name}{config.suffix}" if forged else "",
                    "mask": f"masks/{forgery}/{face.name}.png" if forged else "",
                    "landmarks": landmarks_text(np.asarray((face.landmarks + 0.5) * scale - 0.5, np.float32)),
                    "compression": f"jpeg {config.quality} 4:4:4" if config.suffix == ".jpg" else "png",
                    "sha256": hashlib.sha256((out / path).read_bytes()).hexdigest(),
                }
            )
    return pd.DataFrame(lines)
