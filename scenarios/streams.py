"""Scenarios: from a manifest to the rows of every stream, and to an Avalanche benchmark.

A scenario is a table of rows (see table.py) whose columns `experience`, `stream` and `profile` say where each face is
seen: streams train / valid / test hold one experience a forgery (or group of forgeries), stream unseen one experience
for each forgery that nobody trains on. Two classical streams are settings of it: *types* (one camera, shared real
faces, as DF -> F2F -> FS -> NT) and *types + domains* (each experience with its own camera and people, as
FF++ -> DFDCP -> DFD -> CDF2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ffd_continual.scenarios.capture import PROFILES, CaptureProfile
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.leaks import check_leaks
from ffd_continual.scenarios.manifest import Manifest
from ffd_continual.scenarios.manifest_cells import REAL
from ffd_continual.scenarios.people import PEOPLE, share_of
from ffd_continual.scenarios.reals import REALS, place_reals, real_faces
from ffd_continual.scenarios.shuffled import LABELS
from ffd_continual.scenarios.table import MASKS

STREAMS = ("train", "valid", "test", "unseen")
MIXED = "mixed"


@dataclass(frozen=True)
class ScenarioConfig:
    """What is seen, in which order, through which camera, and by whom it is shared."""

    data: str = "studio"  # "studio", a manifest (.csv, .parquet) or a folder DIR/real + DIR/<forgery>
    order: tuple[str, ...] = ()  # one entry an experience; "a+b" puts two forgeries into one; empty: all, by name
    permuted: int = -1  # 0 or more: the experiences come in another order, drawn by this number; their faces stay
    unseen: tuple[str, ...] = ()  # forgeries that are only tested on
    reals: str = "shared"  # "shared": every experience sees all real faces; "split": each has its own share;
    # "dataset": those of its forged faces' data sets, in test and unseen, too (scenarios/reals.py)
    people: str = "shared"  # "own": each experience has its own people, in train and valid; test people are shared;
    # "apart": the sources of its forged faces are its own, too (scenarios/people.py)
    profiles: dict[str, str] = field(default_factory=dict)  # experience or unseen forgery -> camera; "*" for the rest
    size: int = 96  # pixels a side of the crops that learners see
    crop: float = 1.0  # central share of each picture that is used; the field's face crops are 1.3 times the face's box
    seed: int = 0  # of splits, shares and cameras; apart from the run's seed, so that seeds share one scenario
    judged: str = "test"  # "valid": streams test and unseen show validation people, for choosing settings
    unreadable: str = "error"  # "error" or "skip"
    leaks: str = "error"  # a person, video or picture in two splits: "error", or "allow" (a warning is left)
    studio_people: int = 260  # rendered when data is "studio"
    studio_shots: int = 1
    masks: str = "auto"  # "auto": the manifest's, else from the pair by difference; "manifest", "difference", "ssim"
    labels: str = "given"  # "shuffled": a control; training faces' labels are dealt anew (scenarios/shuffled.py)
    relabel_below: int = 0  # forged training faces with fewer forged pixels become real; the wavelet paper's value: 8
    identity_pattern: str = ""  # regular expression with one group, for folders: file name -> identity


def _groups(config: ScenarioConfig, known: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Experiences as (name, forgeries), checked against the forgeries that the data holds."""
    order = config.order or tuple(f for f in known if f not in config.unseen)
    joined = next((f for f in (*order, *config.unseen) if "+" in f and f in known), None)
    if joined is not None:
        raise FFDError(f"scenario: {config.data} calls a forgery {joined!r}, and '+' joins several. Rename it there.")
    groups = [(entry, tuple(part.strip() for part in entry.split("+"))) for entry in order]
    wanted = [f for _, forgeries in groups for f in forgeries] + list(config.unseen)
    for name in wanted:
        if name not in known:
            raise FFDError(
                f"scenario: no faces of forgery {name!r} in {config.data}. It holds: {', '.join(known) or 'none'}."
            )
    twice = sorted({name for name in wanted if wanted.count(name) > 1})
    if twice:
        raise FFDError(f"scenario: {', '.join(twice)} named twice in order/unseen; every forgery has one place.")
    if not groups:
        raise FFDError(f"scenario: no forgery is left to train on in {config.data}.")
    return groups


def _profile_of(config: ScenarioConfig, name: str, trained: Sequence[str], identity: str) -> str:
    chosen = config.profiles.get(name, config.profiles.get("*", ""))
    if chosen == MIXED:
        cameras = sorted({config.profiles.get(t, config.profiles.get("*", "")) for t in trained})
        return cameras[share_of(identity, config.seed + 1, len(cameras))]
    return chosen


def check_profiles(config: ScenarioConfig) -> dict[str, CaptureProfile]:
    """The cameras a scenario names; an unknown one is an error that lists the known."""
    used = set(config.profiles.values()) - {MIXED, ""}
    unknown = sorted(used - set(PROFILES))
    if unknown:
        raise FFDError(f"scenario.profiles: unknown camera {', '.join(unknown)}. Known: {', '.join(sorted(PROFILES))}.")
    return {name: PROFILES[name] for name in sorted(used)}


def _check_values(config: ScenarioConfig) -> None:
    """Raise FFDError that names the first value which is none of the known, or out of its range."""
    known = {
        "judged": ("test", "valid"), "people": PEOPLE, "reals": REALS, "masks": MASKS, "labels": LABELS,
        "unreadable": ("error", "skip"), "leaks": ("error", "allow"),
    }  # fmt: skip
    for name, values in known.items():
        if getattr(config, name) not in values:
            raise FFDError(f"scenario.{name} must be one of {', '.join(values)}, not {getattr(config, name)!r}.")
    if not 0.2 <= config.crop <= 1.0:
        raise FFDError(f"scenario.crop is the central share of a picture, 0.2 to 1, not {config.crop}.")
    if config.relabel_below < 0:
        raise FFDError(f"scenario.relabel_below counts pixels, 0 or more, not {config.relabel_below}.")


def learning_order(count: int, permuted: int) -> list[int]:
    """Places of the experiences in `scenario.order`, in the order of learning; -1: as they stand there.

    Which people and cameras an experience has hangs on its place in `scenario.order`, never on when it is learnt.
    """
    if permuted < -1:
        raise FFDError(f"scenario.permuted is -1 (the order as given) or a number from 0 on, not {permuted}.")
    if permuted == -1:
        return list(range(count))
    return [int(number) for number in np.random.default_rng([permuted, count]).permutation(count)]


@dataclass(frozen=True)
class Scenario:
    """The rows of all streams, and the names of its experiences."""

    rows: pd.DataFrame
    experiences: tuple[str, ...]
    unseen: tuple[str, ...]
    names: tuple[str, ...]  # forgery names, index = forgery id, "real" first
    profiles: Mapping[str, CaptureProfile]
    notes: tuple[str, ...] = ()  # remarks for the user

    def index(self, stream: str, experience: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Rows of one experience of one stream, ascending."""
        hit = (self.rows["stream"] == stream) & (self.rows["experience"] == experience)
        return np.flatnonzero(hit.to_numpy()).astype(np.int64)


def build_scenario(manifest: Manifest, config: ScenarioConfig) -> Scenario:
    """Lay a manifest (with splits) out as streams. Every empty or one-class experience is an error that names it."""
    faces = manifest.table.reset_index(drop=True)
    faces = faces.assign(manifest_row=np.arange(len(faces)))
    faces["path"] = [str(manifest.absolute(p)) for p in faces["path"]]
    for column in ("mask", "pair"):
        faces[column] = [str(manifest.absolute(p)) if isinstance(p, str) and p else "" for p in faces[column]]
    person = faces["identity"].where(faces["identity"].astype(bool), faces["video"])
    faces["person"] = person.where(person.astype(bool), faces["path"])
    faces["own_profile"] = faces["profile"].fillna("")
    contrary = np.flatnonzero((faces["label"] == 1) != (faces["forgery"] != REAL))
    if len(contrary):
        first = faces.iloc[contrary[0]]
        raise FFDError(
            f"{manifest.source}, {manifest.place(contrary[0])}: label {first['label']} contradicts forgery "
            f"{first['forgery']!r}, as in {len(contrary)} of {len(faces)} rows (`ffd check` lists them). Label 0 goes "
            f"with forgery {REAL!r}, label 1 with any other."
        )
    known = sorted({str(f) for f in faces.loc[faces["label"] == 1, "forgery"]})
    groups = _groups(config, known)
    trained = [name for name, _ in groups]
    strange = next((name for name in config.profiles if name not in {"*", *trained, *known}), None)
    if strange is not None:
        raise FFDError(
            f"scenario.profiles: {strange!r} is no experience, and no forgery of {config.data}. "
            f"It holds: {', '.join(known)}; '*' means all others."
        )
    cameras = check_profiles(config)
    _check_values(config)
    placed = place_reals(faces, [forgeries for _, forgeries in groups], config.people, config.reals, config.seed)
    share = placed.share
    real = (faces["label"] == 0).to_numpy()
    parts: list[tuple[np.ndarray[Any, Any], str, str]] = []  # places among the faces, experience, stream
    turns = learning_order(len(groups), config.permuted)
    for number in turns:
        name, forgeries = groups[number]
        member = real_faces(faces, forgeries, config.reals) | faces["forgery"].isin(forgeries).to_numpy()
        for stream in ("train", "valid", "test"):
            split = config.judged if stream == "test" else stream
            chosen = member & (faces["split"] == split).to_numpy()
            if stream != "test":
                if config.people != "shared":
                    chosen &= (share == number) & placed.sound
                elif config.reals == "split":
                    chosen &= ~real | (share == number)
            parts.append((np.flatnonzero(chosen), name, stream))
    for name in config.unseen:
        member = real_faces(faces, [name], config.reals) | (faces["forgery"] == name).to_numpy()
        chosen = member & (faces["split"] == config.judged).to_numpy()
        parts.append((np.flatnonzero(chosen), name, "unseen"))
    rows = _placed(faces, parts, config, trained)
    check_classes(rows, trained, config.unseen, config.data)
    guessed = not config.identity_pattern and Path(manifest.source).is_dir()  # people named by files' names
    check_leaks(manifest, rows["manifest_row"].to_numpy(), config.leaks == "allow", guessed)
    trained_forgeries = [f for number in turns for f in groups[number][1]]
    names = ("real", *trained_forgeries, *config.unseen)
    notes, again = list(placed.notes), int(rows.duplicated(["path", "experience", "stream"]).sum())
    if again:
        notes.append(f"{again} faces stand twice in one stream and count as often (`ffd check` lists them)")
    return Scenario(
        rows, tuple(trained[number] for number in turns), tuple(config.unseen), names, cameras, tuple(notes)
    )


def _placed(
    faces: pd.DataFrame,
    parts: Sequence[tuple[np.ndarray[Any, Any], str, str]],
    config: ScenarioConfig,
    trained: Sequence[str],
) -> pd.DataFrame:
    """The rows of all streams, one part after the other. One take of all: each copies some twenty columns of text."""
    rows = faces.take(np.concatenate([places for places, _, _ in parts])).reset_index(drop=True)
    named = [(name, stream) for places, name, stream in parts for _ in places]
    profile = [
        _profile_of(config, name, trained, str(person)) or str(own)
        for (name, _), person, own in zip(named, rows["person"], rows["own_profile"], strict=True)
    ]
    return rows.assign(experience=[n for n, _ in named], stream=[s for _, s in named], profile=profile)


def check_classes(rows: pd.DataFrame, trained: Sequence[str], unseen: Sequence[str], source: str) -> None:
    """Raise FFDError that names every stream of an experience without real or without forged faces."""
    there = set(zip(rows["stream"], rows["experience"], rows["label"], strict=True))
    faults = []
    for stream, names in (("train", trained), ("valid", trained), ("test", trained), ("unseen", unseen)):
        for name in names:
            for label, word in ((0, "real"), (1, "forged")):
                if (stream, name, label) not in there:
                    faults.append(f"{stream} stream of {name!r} has no {word} face")
    if faults:
        raise FFDError(
            f"scenario from {source}: "
            + "; ".join(faults)
            + ". Each experience needs both classes in train, valid and "
            "test: add people, or change scenario.people/reals or the split column."
        )
