"""Versions side by side: listed, measured, compared. Nothing here writes (upkeep.py does)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from ffd_continual.lineage.candidate import read_plan
from ffd_continual.lineage.drops import Drop, drops
from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.store import REFUSED
from ffd_continual.measuring.matrix import resampling_groups
from ffd_continual.runs.folder import RunFolder
from ffd_continual.scenarios.errors import FFDError

RESAMPLES = 1000


def state_of(lineage: Lineage, number: int) -> str:
    """ "in use", "promoted", "refused" or "pruned"."""
    if number == lineage.promoted():
        return "in use"
    if not lineage.has_weights(number):
        return "pruned"
    return "refused" if lineage.about(number)["verdict"] == REFUSED else "promoted"


def moment(date: str) -> float:
    """A version's date ("2026-11-22T10:00:00Z") as seconds since 1970."""
    return datetime.strptime(date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def measured_aucs(lineage: Lineage, number: int) -> dict[str, float]:
    """AUC of each forgery that a version can be measured on (`ffd add --unmeasured` brings no forged test faces)."""
    matrix = pd.read_parquet(lineage.folder(number) / "matrix.parquet")
    own = matrix[(matrix["metric"] == "auc") & (matrix["level"] == "frame") & (matrix["stream"] == "test")]
    own = own[(own["after"] == len(lineage.about(number)["experiences"]) - 1) & own["value"].notna()]
    return dict(zip(own["on"], own["value"].astype(float), strict=True))


def mean_auc(lineage: Lineage, number: int) -> float | None:
    """A version's average AUC over what is measured."""
    about = lineage.about(number)
    values = [float(about["aa"])] if about["aa"] is not None else list(measured_aucs(lineage, number).values())
    return float(np.mean(values)) if values else None


def unmeasured(lineage: Lineage, number: int) -> list[str]:
    """What a version learnt from too few faces to be measured on (`ffd add --unmeasured`), and is in no average."""
    known = measured_aucs(lineage, number)
    return [name for name in lineage.about(number)["experiences"] if name not in known]


def is_measured(lineage: Lineage, number: int) -> bool:
    """False for a version whose new forgery came without forged test faces."""
    about = lineage.about(number)
    return about["kind"] != "add" or about["forgery"] not in unmeasured(lineage, number)


def real_sources(lineage: Lineage, names: Iterable[str]) -> set[str]:
    """Those of the experiences that brought real faces of a new source and no forgery: they are in no average."""
    all_ = {about["forgery"] for number in lineage.versions() if (about := lineage.about(number))["kind"] == "real"}
    return all_ & set(names)


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None or not np.isfinite(value) else format(value, form)


def table(lineage: Lineage) -> str:
    """All versions, one a line, in 80 columns."""
    lines = [
        f"{'':>4} {'date':10} {'forgery':15} {'faces':>7} {'AA':>6} {'drop':>7} {'train':>7} {'measure':>7} state",
        f"{'':>4} {'':10} {'':15} {'':>7} {'':>6} {'worst':>7} {'s':>7} {'s':>7}",
    ]
    for number in lineage.versions():
        about = lineage.about(number)
        name = about["forgery"] if about["kind"] != "correct" else f"{about['forgery']}*"
        name = name if is_measured(lineage, number) else f"{name}°"
        name = name if len(name) <= 15 else name[:14] + "~"
        seconds = about["seconds"]
        lines.append(
            f"{number:>4} {about['date'][:10]} {name:15} {about['faces']['train']:>7} "
            f"{_figure(mean_auc(lineage, number), '.3f'):>6} "
            f"{_figure(about['worst_drop'], '+.3f'):>7} {seconds['train']:>7.1f} {seconds['measure']:>7.1f} "
            f"{state_of(lineage, number)}"
        )
    lines.append("AA: average AUC of what is measured; drop: largest of one forgery against the")
    lines.append("parent; * corrected; ° came unmeasured")
    names = lineage.about(lineage.promoted())["experiences"]
    left, sources = unmeasured(lineage, lineage.promoted()), sorted(real_sources(lineage, names))
    if left or sources:
        forgeries = len(names) - len(sources)
        text = f"in use: AA is over {forgeries - len(set(left) - set(sources))} of {forgeries} forgeries"
        text += f"; not measured: {', '.join(left)}" if left else ""
        text += f"; real sources, in no average: {', '.join(sources)}" if sources else ""
        lines += textwrap.wrap(text, 80)
    if lineage.candidate.is_dir():
        lines.append(f"under way: {read_plan(lineage).forgery} (`ffd add {lineage.path} --resume` or --abandon)")
    return "\n".join(lines)


def last_predictions(lineage: Lineage, number: int) -> pd.DataFrame:
    """What a version says of its test and unseen faces; pruned versions can tell it, too."""
    if number not in lineage.versions():
        lineage.run(number)  # says what is known
    last = len(lineage.about(number)["experiences"]) - 1
    return pd.read_parquet(RunFolder(lineage.folder(number)).predictions(last))


def compare(lineage: Lineage, first: int, second: int) -> tuple[list[Drop], list[Drop], str]:
    """What `second` lost against `first` on forgeries that both learnt, and on those unseen by both; what was drawn."""
    one, two = last_predictions(lineage, first), last_predictions(lineage, second)
    about = [lineage.about(n) for n in (first, second)]
    names = [n for n in about[0]["experiences"] if n in about[1]["experiences"]]
    sources = real_sources(lineage, names)
    unseen = [n for n in about[0]["unseen"] if n in about[1]["unseen"]]
    unit, _, groups = resampling_groups(two)
    found = [drops(one, two, n, RESAMPLES, 0, s, sources) for n, s in ((names, "test"), (unseen, "unseen"))]
    return found[0], found[1], f"{RESAMPLES} resamples of {groups} {unit}"


def compared(lineage: Lineage, first: int, second: int) -> str:
    """`compare` in 80 columns; difference > 0: the second version is better."""
    learnt, unseen, words = compare(lineage, first, second)
    if not learnt and not unseen:
        raise FFDError(f"versions {first} and {second} have no test faces in common: there is nothing to compare.")
    lines = [f"{'AUC':18} {'version ' + str(first):>11} {'version ' + str(second):>11}  difference [95 %]"]
    for found, word in ((learnt, ""), (unseen, "unseen ")):
        for one in found if len(found) > 2 else found[:1]:
            name = f"{word}{one.name}"
            name = name if len(name) <= 18 else name[:17] + "~"
            interval = f" [{-one.high:+.3f}, {-one.low:+.3f}]" if np.isfinite(one.low) else ""
            lines.append(f"{name:18} {one.before:>11.3f} {one.after:>11.3f}  {-one.drop:+.3f}{interval}")
    lines.append(f"on the faces that both were measured on; {words}")
    return "\n".join(lines)
