"""`ffd prepare` as a stranger uses it: by the command line, with what it prints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ffd_continual import cli
from ffd_continual.commands import prepare as prepare_command
from ffd_continual.scenarios.datasets.listing import Item, Listing
from ffd_continual.scenarios.pictures import write_picture
from ffd_continual.scenarios.prepare import prepare as module
from ffd_continual.scenarios.prepare.crew import Lost
from ffd_continual.scenarios.prepare.settings import PrepareConfig

Pictures = list[np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def root(
    tmp_path_factory: pytest.TempPathFactory,
    studio_people: Pictures,
    panned: Callable[..., Pictures],
    video_writer: Callable[..., Path],
) -> Path:
    """Videos of three people and their forgeries, one broken file."""
    root = tmp_path_factory.mktemp("command") / "videos"
    for number, face in enumerate(studio_people):
        video_writer(root / f"real/p{number}_a.mp4", panned(face))
        video_writer(root / f"swap/p{number}_a.mp4", panned(face, forged=True))
    (root / "real/p9_broken.mp4").write_bytes(b"no video")
    return root


def test_from_videos_to_a_manifest_that_passes_the_check(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["prepare", "videos", str(root), "--out", str(out), "--quiet"]
    options = ["--frames", "3", "--size", "64", "--workers", "1"]
    assert cli.main([*words, *options]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    said = " ".join(said.split())
    assert lines[0].split() == ["forgery", "train", "valid", "test", "videos"]
    assert lines[1].split() == ["real", "3", "3", "3", "3"]
    assert lines[2].split() == ["swap", "3", "3", "3", "3"]
    assert "18 faces of 7 items, 7 of them worked on now" in said
    assert "1 failed, 0 used in part; all are in" in said
    assert f"manifest: {out / 'manifest.parquet'}" in said
    assert f"next: ffd check {out}" in said
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line)
    assert (out / "failed.csv").read_text().splitlines()[1].startswith("real/p9_broken.mp4,")
    assert cli.main(["check", str(out)]) == 0
    capsys.readouterr()
    assert cli.main([*words, *options]) == 0
    assert "0 of them worked on now" in capsys.readouterr().out
    assert cli.main(words) == 2
    assert "was begun with another frames, size" in capsys.readouterr().err


def test_wrong_words_are_answered(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, answer in (
        (["faceforensic", str(root), "--out", str(tmp_path / "o")], "Did you mean 'faceforensics'?"),
        (["videos", str(root)], "needs both folders"),
        (["videos", str(root / "gone"), "--out", str(tmp_path / "o")], "there is no folder"),
        (["videos", str(root), "--out", str(root / "o")], "lies inside the data set"),
        (["videos", str(root), "--out", str(tmp_path / "o"), "--frames", "0"], "--frames 0 is out of range"),
        (["videos", str(root), "--out", str(tmp_path / "o"), "--workers", "0"], "must be 1 or more"),
    ):
        assert cli.main(["prepare", *words]) == 2
        told = capsys.readouterr().err
        assert answer in told
        assert "Traceback" not in told
    assert not (tmp_path / "o").exists()
    assert cli.main(["prepare", "videos", "--about"]) == 0
    assert "layout" in capsys.readouterr().out


def test_the_summary_fits_a_terminal_whatever_the_names(tmp_path: Path) -> None:
    """Long, odd and empty names in every place; only single words may be longer than a line."""
    table = pd.DataFrame(
        {
            "label": [0, 1, 1],
            "forgery": ["real", "a forgery of a very long name indeed", "line\nbreak"],
            "split": ["train", "", "test"],
            "video": ["", "v", "w"],
            "mask": ["", "m.png", ""],
            "pair": ["", "", "r.jpg"],
        }
    )
    failed = (("a\nb.mp4", "cause\nof two lines " + "very " * 30, 0), ("c.mp4", "cut short", 3))
    notes = ("a note " * 30,)
    out = Path("out folder")
    prepared = module.Prepared(out / "manifest.parquet", table, failed, ("x/" * 60,), notes, 3, 1)
    lines = prepare_command.summary(prepared, out).splitlines()
    assert all(len(line) <= 80 for line in lines)
    text = "\n".join(lines)
    assert "masks: 1 written, 1 made from pairs when a run reads them, 0 unknown" in text
    assert "1 failed, 1 used in part" in text
    assert "none" in lines[0]
    assert 'next: ffd check "out folder"' in text


def test_ctrl_c_says_that_the_same_command_goes_on(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_command, "prepare_listing", pressed)
    assert cli.main(["prepare", "videos", str(root), "--out", str(tmp_path / "o")]) == 130
    assert "The same `ffd prepare` command goes on where it stopped." in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(root: Path, tmp_path: Path) -> None:
    """A terminal sends it to the whole group; nothing but one message appears, and the work goes on."""
    out = tmp_path / "out"
    words = [sys.executable, "-m", "ffd_continual.cli", "prepare", "videos", str(root), "--out", str(out)]
    words += ["--frames", "3", "--size", "64", "--quiet"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    journal, limit = out / "prepare.jsonl", time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 1) and time.monotonic() < limit:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in told
    assert "goes on where it stopped" in told
    limit = time.monotonic() + 20  # the standard library's own helper process takes a moment
    left = True
    while left and time.monotonic() < limit:
        try:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        except ProcessLookupError:
            left = False
    assert not left
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_an_item_whose_process_dies_is_a_failure_and_is_tried_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crew is replaced by one that loses the first item, as when a decoder crashes."""

    class Losing:
        def __init__(self, _: int, begin: Callable[[], Callable[[Any], Any]]) -> None:
            self.work = begin()

        def run(self, tasks: Any) -> Any:
            for at, task in enumerate(tasks):
                yield Lost(task, -11) if at == 0 else self.work(task)

        def close(self) -> None:
            return

    listing = Listing(tuple(Item(f"real/p{n}_a.mp4", 0, "real", f"p{n}") for n in range(3)))
    config = PrepareConfig(frames=2, size=64)
    with monkeypatch.context() as patch:
        patch.setattr(module, "Crew", Losing)
        made = module.prepare_listing(listing, root, tmp_path / "out", "mini", config, workers=1, progress=False)
    assert [(path, cause.split(";")[0]) for path, cause, _ in made.failed] == [
        ("real/p0_a.mp4", "the process that worked on it died (exit code -11)")
    ]
    again = module.prepare_listing(listing, root, tmp_path / "out", "mini", config, progress=False)
    assert again.made == 1
    assert again.failed == ()
    assert len(again.table) == 6


def test_of_pictures_whose_process_died_one_is_to_blame(
    tmp_path: Path, studio_people: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crew that dies over every task with the second picture in it."""

    class Dying:
        def __init__(self, _: int, begin: Callable[[], Callable[[Any], Any]]) -> None:
            self.work = begin()

        def run(self, tasks: Any) -> Any:
            for task in tasks:
                yield Lost(task, -9) if any(one.video == "p1" for one in task.items) else self.work(task)

        def close(self) -> None:
            return

    for number, face in enumerate(studio_people):
        write_picture(tmp_path / f"root/p{number}.png", np.pad(face, ((20, 20), (30, 30), (0, 0)), mode="edge"))
    listing = Listing(tuple(Item(f"p{n}.png", 0, "real", f"p{n}", "picture") for n in range(3)))
    monkeypatch.setattr(module, "Crew", Dying)
    made = module.prepare_listing(
        listing, tmp_path / "root", tmp_path / "out", "mini", PrepareConfig(size=64), workers=1, progress=False
    )
    assert [path for path, _, _ in made.failed] == ["p1.png"]
    assert made.table["path"].tolist() == ["pictures/p0.jpg", "pictures/p2.jpg"]
