"""What is said on a terminal fits into 80 columns, and a remark on the data shows no source code."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ffd_continual import cli
from ffd_continual.config import known_configs
from ffd_continual.measuring.intervals import print_matrix
from ffd_continual.measuring.matrix import MATRIX_COLUMNS
from ffd_continual.runs.samples import stem_of
from ffd_continual.scenarios.errors import DataWarning
from ffd_continual.terminal import WIDTH, warnings_as_remarks, wrapped


def _too_wide(text: str) -> list[str]:
    """Lines of more than 80 columns that hold words beside a path (which cannot be cut)."""
    lines = [line.split("\r")[-1] for line in text.split("\n")]
    return [line for line in lines if len(line) > WIDTH and len(line.split()) > 2]


def test_wrapping_keeps_words_and_lines() -> None:
    path = "/a/very/long/path" * 8
    text = wrapped("first line\n  an indented one " + "word " * 30 + "\n" + path)
    lines = text.split("\n")
    assert lines[0] == "first line"
    assert lines[1].startswith("  an indented one word")
    assert lines[2].startswith("    word")
    assert lines[-1] == path
    assert all(len(line) <= 80 for line in lines[:-1])
    assert " ".join(text.split()) == " ".join(("first line an indented one " + "word " * 30 + path).split())


def test_warnings_of_ours_are_remarks(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings_as_remarks():
        warnings.warn("Ours: " + "long " * 30, DataWarning, stacklevel=1)
    said = capsys.readouterr().err
    assert said.startswith("ffd: note: Ours: long")
    assert "test_terminal.py" not in said
    assert not _too_wide(said)


def test_names_that_the_terminal_cannot_show_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_faces: Path
) -> None:
    table = pd.read_csv(tiny_faces).head(8).assign(forgery=lambda t: t["forgery"].replace("alpha", "\u00e4lpha"))
    table[["path", "label", "forgery"]].to_csv(tmp_path / "m.csv", index=False)
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert cli.main(["check", str(tmp_path / "m.csv"), "--no-pictures"]) == 2  # the files are elsewhere
    sys.stdout.flush()
    assert b"\\xe4lpha" in raw.getvalue()


def test_a_letter_that_charts_lack_is_no_remark(recwarn: pytest.WarningsRecorder) -> None:
    with warnings_as_remarks():
        warnings.warn("Glyph 31278 (\\N{CJK...}) missing from font(s) DejaVu Sans.", UserWarning, stacklevel=1)
        warnings.warn("another", UserWarning, stacklevel=1)
    assert [str(one.message) for one in recwarn] == ["another"]


def test_intervals_over_few_persons_are_called_so() -> None:
    def said(groups: int) -> str:
        boot = {"samples": 1000, "groups": groups, "unit": "persons", "skipped": 0}
        return print_matrix(pd.DataFrame(columns=list(MATRIX_COLUMNS)), [], {"bootstrap": boot})

    assert "too narrow" in said(5)
    assert "too narrow" not in said(20)


def test_any_forgerys_name_makes_a_file_name() -> None:
    assert stem_of(3, "swap") == "003_swap"
    assert stem_of(0, "../a\nb$") == "000_.._a_b_"
    assert len(stem_of(999, "\u7a2e" * 300).encode()) < 200


def test_help_fits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words in (["--help"], *([command, "--help"] for command in cli.COMMANDS)):
        with contextlib.suppress(SystemExit):
            cli.main(words)
        said = capsys.readouterr().out
        assert "usage: ffd" in said
        assert all(len(line) <= WIDTH for line in said.splitlines()), words


def test_lists_fit_whatever_a_configuration_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / "long.yaml"
    long.write_text("# " + "words " * 40 + "\nscenario: {order: [" + ", ".join(["forgery"] * 30) + "]}\n")
    known = {**known_configs(), "a_configuration_with_a_rather_long_name": long}
    monkeypatch.setattr("ffd_continual.commands.list.known_configs", lambda: known)
    monkeypatch.setattr("ffd_continual.commands.list.read_yaml", lambda name: yaml.safe_load(known[name].read_text()))
    for kind in ("configs", "scenarios"):
        assert cli.main(["list", kind]) == 0
        said = capsys.readouterr().out
        assert "a_configuration_with_a_rather_long_name" in said
        assert all(len(line) <= WIDTH for line in said.splitlines())


def test_run_sweep_and_check_fit(
    small_config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = Path(small_config["scenario"]["data"])
    table = pd.read_csv(manifest, dtype=str).fillna("")
    table["path"] = [str(manifest.parent / path) for path in table["path"]]
    for column in ("mask", "pair"):
        table[column] = [str(manifest.parent / path) if path else "" for path in table[column]]
    table.loc[table["label"] == "1", "source_identity"] = "p000"  # of train: leaks into the other splits
    table["forgery"] = table["forgery"].replace("alpha", "a_forgery_with_a_long_name")
    table.to_csv(tmp_path / "manifest.csv", index=False)
    small_config["scenario"] |= {
        "data": str(tmp_path / "manifest.csv"), "order": ["a_forgery_with_a_long_name", "beta"], "unseen": ["gamma"],
        "leaks": "allow", "people": "own", "relabel_below": 1,
    }  # fmt: skip
    small_config["learner"]["name"] = "iin"
    small_config["learner"]["trunk"]["frozen_stages"] = 4
    small_config["train"]["steps"] = 1
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(small_config))
    grid = {"base": str(config), "seeds": [0], "methods": {"a-method-with-quite-a-long-name": []}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    assert cli.main(["sweep", str(tmp_path / "grid.yaml"), "--out", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr()
    assert "leak" in said.err
    assert "figures may be too good" in " ".join(said.err.split())
    assert "person of another experience" in " ".join(said.out.split())
    assert "AUC (frame level)" in said.out
    assert "Student's t" in said.out
    assert not _too_wide(said.out)
    assert not [line for line in _too_wide(said.err) if "%|" not in line]  # a bar takes the terminal's own width
    assert cli.main(["check", str(tmp_path / "manifest.csv")]) == 2
    shown = capsys.readouterr().out
    assert "identity-in-two-splits" in shown
    assert not _too_wide(shown)
