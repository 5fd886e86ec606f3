"""Published protocols: data sets, order, splits and budgets of a paper's table, and the same in miniature.

A protocol is a file configs/protocols/NAME.yaml. Its part `run` is a configuration as any other; `data` says which
manifests it is made of (they are joined into one, data/protocols/NAME.parquet); `studio` names the family of forgeries
that stands for each of its forgeries, so that the same structure runs on rendered faces, without any data:

    ffd run protocols/NAME            ffd run protocols/NAME/VARIANT            ffd run protocols/NAME --studio
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.resources
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ffd_continual.config import apply_sets, fill, read_yaml
from ffd_continual.published import Published
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import Manifest, read_manifest, write_manifest
from ffd_continual.scenarios.manifest_cells import PATH_COLUMNS

PREFIX = "protocols/"
JOINED = Path("data/protocols")  # where the joined manifests are written
BY_DATE = "by date"
SPLIT_FILES = {"train": "train.json", "valid": "val.json", "test": "test.json"}  # as FaceForensics++ names them


@dataclass(frozen=True)
class DataSet:
    """One manifest of a protocol, and what is taken from it; its name becomes the joined manifest's `dataset`."""

    manifest: str
    where: dict[str, str] = field(default_factory=dict)  # column -> the value that rows need
    forgeries: dict[str, str] = field(default_factory=dict)  # its name there -> here; empty: all, as `name`
    keep_names: bool = False  # with `forgeries` empty: the manifest's own names of forgeries and data sets stay
    columns: tuple[str, ...] = ()  # columns that must be filled
    splits: str = ""  # folder of official train.json, val.json, test.json; empty: the manifest's column


@dataclass(frozen=True)
class Studio:
    """The miniature: who stands for whom, and what else differs."""

    families: dict[str, str]  # forgery of the protocol -> family of `ffd list families`, or several as "a+b"
    cameras: dict[str, str] = field(default_factory=dict)  # forgery of the protocol -> camera; "*" for the rest
    dates: dict[str, str] = field(default_factory=dict)  # forgery -> date, where the order is by date
    sets: tuple[str, ...] = ()  # key=value


@dataclass(frozen=True)
class Protocol:
    """A protocol file. Where a paper does not say something, the text says "not stated"."""

    title: str
    source: str
    metric: tuple[str, ...]
    splits: str
    budgets: dict[str, str]
    data: dict[str, DataSet]
    studio: Studio
    notes: str = ""
    published: tuple[Published, ...] = ()  # what papers print, where their data and order are these
    videos: int = 0  # training videos, real and forged each, of every data set after the first; 0: all
    run: dict[str, Any] = field(default_factory=dict)  # a configuration
    name: str = ""
    variants: tuple[str, ...] = ()  # names of the file's variants; without one, the first is meant


def known_protocols() -> dict[str, Path]:
    """Protocol files by name."""
    folder = Path(str(importlib.resources.files("ffd_continual.configs"))) / "protocols"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(base)
    for key, value in over.items():
        old = made.get(key)
        made[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return made


def read_protocol(name: str) -> Protocol:
    """`NAME` or `NAME/VARIANT`. Raises FFDError naming the nearest known one."""
    stem, _, variant = name.removeprefix(PREFIX).partition("/")
    known = known_protocols()
    if stem not in known:
        near = difflib.get_close_matches(stem, known, 1, 0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise FFDError(f"no protocol {stem!r}.{hint} Known: {', '.join(known)}.")
    values = read_yaml(str(known[stem]))
    variants = values.pop("variants", {})
    if variant and variant not in variants:
        raise FFDError(f"protocol {stem} has no variant {variant!r}. Known: {', '.join(variants) or 'none'}.")
    chosen = variant or next(iter(variants), "")
    values = _merged(values, variants.get(chosen, {}))
    run = values.pop("run", {})
    called = f"{stem}/{variant}" if variant else stem
    protocol = fill(Protocol, values, f"{PREFIX}{stem}")
    return dataclasses.replace(protocol, run=run, name=called, variants=tuple(variants))


def _split_of(folder: Path) -> dict[str, str]:
    """Video -> split, from official lists of pairs of video names (nested lists of text)."""
    found: dict[str, str] = {}
    for split, file in SPLIT_FILES.items():
        try:
            pairs = json.loads((folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FFDError(f"cannot read the official split {folder / file}: {error}") from error
        for pair in pairs:
            found.update(dict.fromkeys([pair] if isinstance(pair, str) else pair, split))
    return found


def _missing_of(data: DataSet) -> list[str]:
    """What one data set lacks, each with its place."""
    lists = [Path(data.splits) / file for file in SPLIT_FILES.values()] if data.splits else []
    lacks = [str(path) for path in lists if not path.is_file()]
    if not Path(data.manifest).is_file():
        return [data.manifest, *lacks]
    table = read_manifest(data.manifest).table
    for column, value in data.where.items():
        if column not in table or not (table[column] == value).any():
            lacks.append(f"{data.manifest}: rows with {column} {value}")
    for column in data.columns:
        asked = table[table["label"] == 1] if column == "date" else table  # real faces need none
        if (asked[column] == "").any():
            lacks.append(f"{data.manifest}: {column} in every row")
    known = set(table["forgery"])
    return lacks + [f"{data.manifest}: forgery {there}" for there in data.forgeries if there not in known]


def missing(protocol: Protocol) -> list[str]:
    """What the protocol needs and is not there, one text each; empty: it can run."""
    return [text for data in protocol.data.values() for text in _missing_of(data)]


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _few_videos(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Training rows of only `count` real and `count` forged videos, those of the smallest hash of their name."""
    keep = (table["split"] != "train").to_numpy()
    for label in (0, 1):
        side = (table["label"] == label) & (table["split"] == "train")
        videos = sorted(set(table.loc[side, "video"]), key=_hashed)[:count]
        keep = keep | (side & table["video"].isin(videos)).to_numpy()
    return table[keep]


def _taken(name: str, data: DataSet, target: Path) -> pd.DataFrame:
    """The rows of one data set, named as the protocol names them, with paths from the folder `target`."""
    manifest: Manifest = read_manifest(data.manifest)
    table = manifest.table
    for column, value in data.where.items():
        table = table[table[column] == value]
    real = table["label"] == 0
    if data.forgeries:
        table = table[real | table["forgery"].isin(list(data.forgeries))]
        new = table["forgery"].map(data.forgeries).where(table["label"] == 1, "real")
    else:
        new = table["forgery"] if data.keep_names else pd.Series(name, index=table.index).where(~real, "real")
    table = table.assign(forgery=new, dataset=table["dataset"] if data.keep_names else name)
    for column in PATH_COLUMNS:
        table[column] = [os.path.relpath(manifest.absolute(p), target) if p else "" for p in table[column]]
    if data.splits:
        splits = _split_of(Path(data.splits))
        first = [re.split(r"[^0-9A-Za-z]", video)[0] for video in table["video"]]
        unlisted = sorted({video for video in first if video not in splits})
        if unlisted:
            raise FFDError(f"{data.manifest}: video {unlisted[0]!r} is in no split of {data.splits}.")
        table = table.assign(split=[splits[video] for video in first])
    return table


def joined_path(protocol: Protocol, target: Path = JOINED) -> Path:
    """Where the joined manifest lies."""
    return target / f"{protocol.name.replace('/', '-')}.parquet"


def join_data(protocol: Protocol, target: Path = JOINED) -> Path:
    """Write the joined manifest of a protocol. Raises FFDError that lists all that is missing."""
    lacks = missing(protocol)
    if lacks:
        raise FFDError(
            f"{PREFIX}{protocol.name} cannot run: missing {'; '.join(lacks)}. Without the data: "
            f"`ffd run {PREFIX}{protocol.name} --studio`."
        )
    parts = []
    for number, (name, data) in enumerate(protocol.data.items()):
        table = _taken(name, data, target)
        parts.append(_few_videos(table, protocol.videos) if protocol.videos and number else table)
    path = joined_path(protocol, target)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(pd.concat(parts, ignore_index=True), path)
    return path


def by_date(dates: Mapping[str, str]) -> list[str]:
    """Forgeries in order of their first date, ties by name. Raises FFDError where one has none."""
    undated = sorted(name for name, date in dates.items() if not date)
    if undated:
        raise FFDError(f"the order is by date, and no face of {', '.join(undated)} has a date: fill the column `date`.")
    return sorted(dates, key=lambda name: (dates[name], name))


def _first_dates(path: Path) -> dict[str, str]:
    forged = read_manifest(path).table.query("label == 1")
    return {str(name): min((d for d in part if d), default="") for name, part in forged.groupby("forgery")["date"]}


def _in_studio(protocol: Protocol) -> dict[str, Any]:
    """The run with families instead of forgeries: same groups in the same order, rendered faces."""
    studio, families = protocol.studio, protocol.studio.families
    scenario = dict(protocol.run.get("scenario") or {})
    order = by_date(studio.dates) if scenario.get("order") == BY_DATE else scenario.get("order", [])

    def stand_in(entry: str) -> str:
        lacking = [part for part in entry.split("+") if part not in families]
        if lacking:
            raise FFDError(f"{PREFIX}{protocol.name}: studio.families names no family for {', '.join(lacking)}.")
        return "+".join(families[part] for part in entry.split("+"))

    scenario |= {
        "data": "studio",
        "order": [stand_in(entry) for entry in order],
        "unseen": [stand_in(entry) for entry in scenario.get("unseen", [])],
        "profiles": {c if c == "*" else stand_in(c): camera for c, camera in studio.cameras.items()},
    }
    return apply_sets({**protocol.run, "scenario": scenario}, studio.sets)


def protocol_config(name: str, studio: bool = False, data: str = "") -> dict[str, Any]:
    """A protocol's configuration, as `config_from` reads it.

    `studio`: the miniature on rendered faces. `data`: a manifest that is used as it is, instead of those that the
    protocol names; else these are joined and written. Raises FFDError that lists what is missing.
    """
    protocol = read_protocol(name)
    plain = protocol.name.replace("/", "-")
    if studio:
        return {"name": f"{plain}-studio", **_in_studio(protocol)}
    path = Path(data) if data else join_data(protocol)
    scenario = {**(protocol.run.get("scenario") or {}), "data": str(path)}
    if scenario.get("order") == BY_DATE:
        scenario["order"] = by_date(_first_dates(path))
    return {"name": plain, "protocol": "" if data else protocol.name, **protocol.run, "scenario": scenario}


def base_values(name: str, studio: bool = False, data: str = "") -> dict[str, Any]:
    """What a command or a grid names, as a mapping: protocols/NAME, else a packaged configuration or a file.

    studio, data: as in `protocol_config`, of protocols only. Raises FFDError where `studio` is asked of another.
    """
    if name.startswith(PREFIX) and not Path(name).is_file():
        return protocol_config(name, studio, data)
    if studio:
        raise FFDError(f"--studio is for protocols (`ffd list protocols`), and {name} is none.")
    return read_yaml(name)


def state_of(name: str) -> dict[str, Any]:
    """What `ffd list protocols --json` says of one protocol; `missing` by variant, "" where there is none."""
    protocol = read_protocol(name)
    lacks = {variant: missing(read_protocol(f"{name}/{variant}")) for variant in protocol.variants}
    facts = {key: getattr(protocol, key) for key in ("title", "source", "metric", "splits", "budgets", "notes")}
    facts["published"] = [dataclasses.asdict(row) for row in protocol.published]
    order = (protocol.run.get("scenario") or {}).get("order")
    miniature = f"ffd run {PREFIX}{name} --studio"
    return {**facts, "order": order, "missing": lacks or {"": missing(protocol)}, "miniature": miniature}


def described(name: str) -> list[str]:
    """What `ffd list protocols` says of one protocol, line by line: what it is, what is missing, what runs."""
    state = state_of(name)
    variants = ", ".join(filter(None, state["missing"]))
    lines = [state["title"], f"from {state['source']}", *([f"variants: {variants}"] if variants else [])]
    lacks: dict[str, list[str]] = {}
    for variant, texts in state["missing"].items():
        for text in texts:
            lacks.setdefault(text, []).append(variant)
    for text, some in lacks.items():
        lines.append(f"missing: {text}" + (f" ({', '.join(some)})" if len(some) < len(state["missing"]) else ""))
    ready = [variant for variant, texts in state["missing"].items() if not texts]
    lines += [f"runs: ffd run {PREFIX}{name}{'/' if variant else ''}{variant}" for variant in ready]
    return [*lines, f"without data: {state['miniature']}"]
