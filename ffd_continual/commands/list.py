"""`ffd list`: what can be named in a configuration."""

from __future__ import annotations

import argparse
import inspect
import json
import textwrap

from ffd_continual.config import known_configs, read_yaml
from ffd_continual.load import known_methods
from ffd_continual.protocols import described, known_protocols, state_of
from ffd_continual.scenarios.capture import PROFILES
from ffd_continual.scenarios.forging.contract import FAMILIES, load_family
from ffd_continual.strategies.learner import Learner
from ffd_continual.strategies.strategy import Strategy

KINDS = ("learners", "strategies", "scenarios", "configs", "families", "cameras", "protocols")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to list."""
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--json", action="store_true", help="print JSON")


def _first_line(text: str | None) -> str:
    return inspect.cleandoc(text or "").splitlines()[0] if text else ""


def listed(kind: str) -> dict[str, str]:
    """Name -> one line on it."""
    if kind in ("learners", "strategies"):
        base = Learner if kind == "learners" else Strategy
        return {name: _first_line(inspect.getmodule(cls).__doc__) for name, cls in known_methods(base).items()}
    if kind == "configs":
        return {name: _header(path.read_text(encoding="utf-8")) for name, path in known_configs().items()}
    if kind == "scenarios":
        found = {}
        for name in known_configs():
            scenario = read_yaml(name).get("scenario") or {}
            order = ", ".join(scenario.get("order") or ["all"])
            found[name] = (
                f"{scenario.get('data', 'studio')}: {order} | unseen: {', '.join(scenario.get('unseen') or [])}"
            )
        return found
    if kind == "families":
        return {name: _first_line(type(load_family(name)).__doc__) for name in FAMILIES}
    return {name: _first_line(str(profile)) for name, profile in PROFILES.items()}


def _header(text: str) -> str:
    first = text.splitlines()[0] if text else ""
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def _protocols(as_json: bool) -> int:
    """Each protocol in some lines: what it is, what is missing where."""
    if as_json:
        print(json.dumps({name: state_of(name) for name in known_protocols()}, indent=1))
        return 0
    for name in known_protocols():
        print(name)
        for line in described(name):
            print(textwrap.fill(line, 79, initial_indent="  ", subsequent_indent="    "))
    return 0


def run(args: argparse.Namespace) -> int:
    """Print the list."""
    if args.kind == "protocols":
        return _protocols(args.json)
    found = listed(args.kind)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    width = max((len(name) for name in found), default=0)
    for name, words in found.items():
        room = 79 - width - 2
        print(f"{name:<{width}s}  {words if len(words) <= room else words[: room - 3] + '...'}")
    return 0
