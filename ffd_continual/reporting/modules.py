"""The report's part on learners that add a module a forgery: are they kept apart from what is common, do they drift?"""

from __future__ import annotations

from ffd_continual.reporting.charts import escape
from ffd_continual.reporting.data import RunData
from ffd_continual.reporting.frame import show, table

FEW = 1000  # faces below which the floor is too high to tell anything


def modules(run: RunData) -> str:
    """A row a module, from the figures of `modules.measure_modules`."""
    faces, rows = int(run.modules.get("faces", 0)), run.modules.get("of") or {}
    if not rows:
        return ""
    shown = []
    for name, one in rows.items():
        moved, spread = one.get("drift"), one.get("spread")
        drift = "–" if moved is None else f"{show(moved, 3)} <small>of {show(spread, 2)}</small>"
        cells = [
            show(one.get("corr")),
            show(one.get("floor")),
            drift,
            show(one.get("auc_then")),
            show(one.get("auc_now")),
        ]
        shown.append([escape(name), *cells])
    few = (
        f" With fewer than {FEW:,} faces the floor is high, and a correlation below it says little."
        if faces < FEW
        else ""
    )
    heads = ["Module of", "Correlation", "Its floor", "Drift", "AUC when learnt", "AUC now"]
    return (
        f"<p>Each forgery has a module of its own beside the common features. On {faces:,} held-out faces: the mean "
        "correlation between its special features and the common ones (sign dropped, each class's mean removed), and "
        f"the floor that unrelated features reach by chance.{few} Drift is how far the module's score moved on average "
        "since its experience ended, beside the spread of that score; the AUC are the module's alone, on its own "
        "forgery.</p>" + table(heads, shown, set(range(1, len(heads))), stack=True)
    )
