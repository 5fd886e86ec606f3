"""What is said on a terminal: at most 80 columns, paths and long names left whole."""

from __future__ import annotations

import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ffd_continual.scenarios.errors import DataWarning

WIDTH = 80


def wrapped(text: str) -> str:
    """Each line of a text at most `WIDTH` columns wide, unless a single word is longer."""
    lines = [
        textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False, subsequent_indent=_indent(line))
        for line in text.split("\n")
    ]
    return "\n".join(lines)


def _indent(line: str) -> str:
    """What follows an indented line stands two columns further in."""
    spaces = len(line) - len(line.lstrip(" "))
    return " " * (spaces + 2) if spaces else ""


def say(text: str) -> None:
    """Print a remark."""
    print(wrapped(text))


@contextmanager
def warnings_as_remarks() -> Iterator[None]:
    """Inside, our own warnings are shown as remarks, without the place in the source that a user cannot mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="avalanche")
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box in a chart; the page has it
        warnings.simplefilter("always", DataWarning)
        usual = warnings.showwarning

        def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, DataWarning):
                print(wrapped(f"ffd: note: {message}"), file=sys.stderr)
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        yield
