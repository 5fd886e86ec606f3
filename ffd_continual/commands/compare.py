"""`ffd compare RUN... | SWEEP`: finished runs of one scenario side by side, on one offline page and as tables."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

from ffd_continual.comparing.finished import methods_of, read_runs
from ffd_continual.comparing.page import comparison_page
from ffd_continual.comparing.paired import check_same_faces, compare
from ffd_continual.comparing.published import (
    published_beside,
    published_markdown,
    published_note,
    published_table,
    published_terminal,
)
from ffd_continual.comparing.tables import csv_table, latex, markdown, notes, terminal
from ffd_continual.runs.folder import RunFolder, write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, or the folder of a sweep")
    parser.add_argument("--out", type=Path, help="where the page and the tables go (default: SWEEP/comparison)")
    parser.add_argument("--baseline", default="", metavar="METHOD", help="what differences are against (the first)")


def _default_out(runs: list[Path]) -> Path:
    """In the sweep's folder; of single runs beside the first."""
    first = runs[0]
    return (first.resolve().parent if RunFolder(first).config.is_file() else first) / "comparison"


def run(args: argparse.Namespace) -> int:
    """Write the page and the tables, print the short table and the page's path."""
    runs, left_out = read_runs(args.runs)
    for line in left_out:
        print(textwrap.fill(f"warning: left out: {line}.", 80, break_long_words=False), file=sys.stderr)
    check_same_faces(runs)
    methods = methods_of(runs)
    compared = compare(methods, args.baseline)
    protocol, lines = published_beside(methods)
    out: Path = args.out or _default_out(args.runs)
    write_text(out / "comparison.csv", csv_table(methods, compared).to_csv(index=False))
    write_text(out / "comparison.md", markdown(methods, compared) + published_markdown(protocol, lines))
    if lines:
        write_text(out / "published.csv", published_table(lines).to_csv(index=False))
    write_text(out / "comparison.tex", latex(methods, compared))
    write_text(out / "comparison.html", comparison_page(methods, compared, left_out, (protocol, lines)))
    print(terminal(methods, compared))
    print("\n".join(textwrap.fill(line, 80) for line in notes(methods, compared)))
    if lines:
        print("\n" + published_terminal(protocol, lines))
        print(textwrap.fill(published_note(protocol), 80))
    print(f"\ncomparison: {out / 'comparison.html'}")
    return 0
