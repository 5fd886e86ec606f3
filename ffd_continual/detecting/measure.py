"""Is a new forgery noticed? A forgery is withheld from what is known, then shown.

Of a configuration (`measure_discovery`), each forgery is withheld from training in turn: OUT/without-NAME is a run
that was never taught NAME. All is resumable: finished runs and their figures are kept. Of a finished run
(`measure_finished`) nothing is trained: its unseen forgeries were never taught, and each known one is withheld by
closing its module, as far as modules tell: only scores that read nothing else are judged so.
Thresholds are the 95 % point of *validation* faces of known forgeries, set before any test face is looked at. Then:
test faces of known forgeries against those of the withheld one (AUROC with a 95 % interval over persons, FPR at 95 %
TPR, shares at the threshold), the share of real test faces above it, and the groups among all that is flagged (purity).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ffd_continual.config import RunConfig
from ffd_continual.detecting.described import Described, describe_faces, distinct
from ffd_continual.detecting.evidence import class_names, read_rows, run_rows, spread_rows, stored_rows
from ffd_continual.detecting.grouping import WAYS, group_faces, measure_grouping
from ffd_continual.detecting.novelty import KINSHIP, TAUGHT, Novelty, measure_flagging
from ffd_continual.detecting.opened import Opened, open_detector
from ffd_continual.measuring.matrix import number
from ffd_continual.measuring.metrics import auc, batched_auc, cluster_bootstrap
from ffd_continual.run import resume, start
from ffd_continual.runs.assemble import open_data
from ffd_continual.runs.folder import RunFolder, write_text
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.streams import build_scenario
from ffd_continual.terminal import say

Names = npt.NDArray[np.str_]
QUANTILE = 0.95
RESULT = "discovery.json"
TRAINED, CLOSED, UNSEEN = "trained without", "module closed", "never taught"
BY_MODULES = ("max-logit", "neighbour-special", *KINSHIP)  # read modules and residuals only
SAMPLES = 500  # resamples of persons


@dataclass(frozen=True)
class Faces:
    """Described faces with their forgery ("real" for none) and person."""

    seen: Described
    names: Names
    people: Names

    def take(self, at: npt.NDArray[np.bool_]) -> Faces:
        """Some of them."""
        return Faces(self.seen.take(at), self.names[at], self.people[at])

    def closed(self, at: int) -> Faces:
        """As a detector without module `at` describes them."""
        return replace(self, seen=self.seen.closed(at))


@dataclass(frozen=True)
class Material:
    """What a detector is judged on: its stored faces, validation forgeries, and test faces (real ones, too)."""

    stored: Faces
    usual: Faces
    test: Faces
    kind: str


def gather_material(detector: Opened, rows: pd.DataFrame) -> Material:
    """`rows`: those of a scenario whose test and unseen streams hold the forgeries to judge."""
    stored, kind = stored_rows(detector, TAUGHT)
    valid = rows[(rows["stream"] == "valid") & (rows["label"] == 1)]
    shown = rows[rows["stream"].isin(("test", "unseen"))]
    forged = shown[shown["label"] == 1].drop_duplicates(["path", "experience"])
    reals = shown[shown["label"] == 0].drop_duplicates("path")
    parts = []
    for chosen in (stored, spread_rows(valid), pd.concat([forged, reals])):
        kept, faces = distinct(*read_rows(detector, chosen))
        people = kept["person"] if "person" in kept else kept["identity"]
        parts.append(Faces(describe_faces(detector, faces), np.array(class_names(kept)), people.to_numpy().astype(str)))
    return Material(parts[0], parts[1], parts[2], kind)


def judge(
    material: Material, name: str, known: Sequence[str], smallest: int, ways: Sequence[str] = ()
) -> dict[str, Any]:
    """Figures of each score for the withheld forgery `name`; `known` are what the detector knows."""
    test, usual = material.test, material.usual.take(np.isin(material.usual.names, known))
    novelty = Novelty(material.stored.seen, material.stored.names.tolist(), usual.seen)
    new, old, real = test.names == name, np.isin(test.names, known), test.names == "real"
    either = new | old
    found: dict[str, Any] = {}
    for way in novelty.ways():
        if ways and way not in ways:
            continue
        scores, cut = novelty.score(way, test.seen), float(np.quantile(novelty.score(way, usual.seen), QUANTILE))
        interval = cluster_bootstrap(
            new[either].astype(int), scores[either], test.people[either], batched_auc, SAMPLES
        )  # fmt: skip
        line = asdict(measure_flagging(scores[old], scores[new], cut))
        line |= {"low": number(interval.low), "high": number(interval.high)}
        if real.any():
            both = new | real
            line |= {
                "reals": float((scores[real] > cut).mean()),
                "auroc_real": float(auc(new[both].astype(int), scores[both])),
            }
        if way in KINSHIP:
            line["grouping"] = _groups(novelty, test.take((scores > cut) & ~real), smallest)
        found[way] = line
    return {"withheld": name, "known": int(old.sum()), "novel": int(new.sum()), "ways": found}


def _groups(novelty: Novelty, flagged: Faces, smallest: int) -> dict[str, Any]:
    """Groups of flagged forged faces, by each way where groups are looked for, and by what modules alone see."""
    if not len(flagged.names):
        return {}
    families = novelty.families(flagged.seen)
    found = {by: group_faces(families, by, smallest) for by in WAYS}
    found["modules only"] = group_faces(novelty.white("special").kin(flagged.seen.special), smallest=smallest)
    return {by: asdict(measure_grouping(labels, flagged.names.tolist())) for by, labels in found.items()}


def without(config: RunConfig, name: str) -> RunConfig:
    """The configuration that is never taught `name`."""
    rest = tuple(entry for entry in config.scenario.order if entry != name)
    unseen = (name, *config.scenario.unseen)
    return replace(config, name=f"without-{name}", scenario=replace(config.scenario, order=rest, unseen=unseen))


def train_without(config: RunConfig, name: str, folder: Path) -> Path:
    """The run folder, finished. Raises FFDError where another configuration lies there."""
    wanted = without(config, name)
    if not (folder / "config.yaml").exists():
        start(wanted, folder)
        return folder
    there = RunFolder(folder).read_config()
    if there.scenario.order != wanted.scenario.order or there.learner != wanted.learner:
        raise FFDError(f"{folder} was run with another configuration. Choose another --out.")
    if not (folder / "summary.json").is_file():
        resume(folder)
    return folder


def measure_discovery(config: RunConfig, out: Path, smallest: int = 5, withhold: Sequence[str] = ()) -> pd.DataFrame:
    """All of it; one row a withheld forgery and score. Also written: OUT/discover.csv and a discovery.json a run.

    withhold: some of the configuration's forgeries; all of them by default. Raises FFDError for fewer than three
    forgeries (two have to be known), for a name that is none of them, and as a run does.
    """
    order = config.scenario.order
    if len(order) < 3:
        raise FFDError("scenario.order names fewer than 3 forgeries: withholding one would leave less than two known.")
    for name in withhold:
        if name not in order:
            raise FFDError(f"--withhold {name}: scenario.order names no such forgery. Known: {', '.join(order)}.")
    rows = build_scenario(open_data(config, RunFolder(out / "run").cache), config.scenario).rows
    found = []
    for name in withhold or order:
        folder = train_without(config, name, out / f"without-{name.replace('/', '_')}")
        result = folder / RESULT
        if not result.is_file():
            say(f"withheld {name}: judging")
            material = gather_material(open_detector(folder), rows)
            told = judge(material, name, [entry for entry in order if entry != name], smallest)
            write_text(result, json.dumps({"how": TRAINED, **told}, indent=1))
        found.append(json.loads(result.read_text(encoding="utf-8")))
    return _write(found, out)


def measure_finished(folder: Path, out: Path, smallest: int = 5, withhold: Sequence[str] = ()) -> pd.DataFrame:
    """A finished run's unseen forgeries, and its known ones with their modules closed; OUT/discover.csv.

    Raises FFDError where there is neither, or its data are gone.
    """
    detector = open_detector(folder)
    known, unseen = detector.known, detector.config.scenario.unseen
    material = gather_material(detector, run_rows(detector))
    closable = known if material.stored.seen.heard.shape[1] and len(known) > 2 else ()
    closable = tuple(name for name in closable if name in material.test.names)
    for name in withhold:
        if name not in (*closable, *unseen):
            raise FFDError(f"--withhold {name}: known are {', '.join((*closable, *unseen)) or 'none'}.")
    if not closable and not unseen:
        raise FFDError(f"{folder} has neither unseen forgeries nor modules of three or more known ones to close.")
    found = []
    for name in withhold or (*unseen, *closable):
        say(f"withheld {name}: judging")
        if name in unseen:
            found.append({"how": UNSEEN, **judge(material, name, known, smallest)})
        else:
            found.append({"how": CLOSED, **_judge_closed(material, name, known, smallest)})
    return _write(found, out)


def _judge_closed(material: Material, name: str, known: Sequence[str], smallest: int) -> dict[str, Any]:
    at = known.index(name)
    stored = material.stored.take(material.stored.names != name).closed(at)
    less = Material(stored, material.usual.closed(at), material.test.closed(at), material.kind)
    return judge(less, name, [entry for entry in known if entry != name], smallest, BY_MODULES)


def _lines(found: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in found:
        for way, values in one["ways"].items():
            line = {"withheld": one["withheld"], "how": one["how"], "score": way, "known": one["known"]}
            line |= {"novel": one["novel"], **{k: v for k, v in values.items() if k != "grouping"}}
            for by, group in values.get("grouping", {}).items():
                line |= {f"{by} {key}": number(value) for key, value in group.items()}
            yield line


def _write(found: Sequence[dict[str, Any]], out: Path) -> pd.DataFrame:
    table = pd.DataFrame(list(_lines(found)))
    write_text(out / "discover.csv", table.to_csv(index=False))
    return table


def flagging_text(table: pd.DataFrame) -> str:
    """Every score, means over withheld forgeries; at most 80 columns."""
    lines = []
    for how, half in table.groupby("how", sort=False):
        count = half["withheld"].nunique()
        lines.append(f"{f'{how} ({count})':<24}{'AUROC':>8}{'FPR95':>8}{'flagged':>9}{'false':>8}{'reals':>8}")
        for way, part in half.groupby("score", sort=False):
            keys = ("auroc", "fpr95", "flagged", "false", "reals")
            cells = [float(part[key].mean()) if key in part else float("nan") for key in keys]
            lines.append(f"  {way:<22}{cells[0]:>8.3f}{cells[1]:>8.3f}{cells[2]:>9.3f}{cells[3]:>8.3f}{cells[4]:>8.3f}")
    return "\n".join(lines)


def each_text(table: pd.DataFrame, way: str) -> str:
    """One score's figures for every withheld forgery, and the groups among what it flags."""
    lines = [f"{'withheld':<14}{'AUROC':>7}  {'95 % interval':<16}{'FPR95':>6}{'flagged':>9}{'groups':>8}{'purity':>8}"]
    for _, row in table[table["score"] == way].iterrows():
        told = [float(row.get(f"agglomerative {key}", float("nan"))) for key in ("groups", "purity")]
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        cells = f"{row['auroc']:>7.3f}  {interval:<16}{row['fpr95']:>6.3f}{row['flagged']:>9.3f}"
        lines.append(f"{str(row['withheld'])[:13]:<14}{cells}{told[0]:>8.0f}{told[1]:>8.3f}")
    return "\n".join(lines)


def grouping_text(table: pd.DataFrame, way: str) -> str:
    """Purity of the groups among the faces that one score flags, means over withheld forgeries."""
    part = table[table["score"] == way]
    lines = [f"{'groups by':<28}{'groups':>8}{'grouped':>9}{'purity':>8}{'one group':>11}"]
    for column in [c.removesuffix(" purity") for c in part.columns if c.endswith(" purity")]:
        cells = [part[f"{column} {key}"].astype(float).mean() for key in ("groups", "grouped", "purity", "chance")]
        lines.append(f"{column:<28}{cells[0]:>8.1f}{cells[1]:>9.3f}{cells[2]:>8.3f}{cells[3]:>11.3f}")
    return "\n".join(lines)
