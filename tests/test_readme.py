"""What the README promises exists: make targets, files, ffd commands."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _code() -> str:
    """The README's commands: what stands in fences and between back ticks."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return "\n".join(
        fence or tick for fence, tick in re.findall(r"^```[^\n]*\n(.*?)^```|`([^`\n]+)`", text, re.S | re.M)
    )


def test_it_names_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z-]+)", _code()))
    assert {"demo", "test"} <= named, "the README's two commands are make demo and make test"
    assert named <= targets


def test_it_names_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b((?:configs|docs)/[\w./-]+\.(?:yaml|md))\b", text))
    named |= {link for link in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in link}
    assert named, "the README links to nothing"
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]


def test_it_names_commands_that_exist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    commands = set(re.findall(r"(?:^|[\s/])ffd ([a-z][a-z-]*)", _code(), re.M))
    assert commands, "the README shows no ffd command"
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="ffd")
    main = script.load()
    for command in sorted(commands):
        monkeypatch.setattr(sys, "argv", ["ffd", command, "--help"])
        with pytest.raises(SystemExit) as left:
            sys.exit(main())
        assert left.value.code in (0, None), f"ffd {command} --help: {capsys.readouterr().err}"
