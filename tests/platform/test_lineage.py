"""A lineage's life on tiny faces: adopted, grown, refused, rolled back, pruned, corrected, and a person forgotten."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ffd_continual import cli
from ffd_continual.config import config_from
from ffd_continual.lineage import grow as lineage_grow
from ffd_continual.lineage.add import Addition, begin
from ffd_continual.lineage.adopt import adopt
from ffd_continual.lineage.drops import Drop
from ffd_continual.lineage.forget import search
from ffd_continual.lineage.lineage import Lineage, open_lineage
from ffd_continual.lineage.rows import capped, strategy_state
from ffd_continual.lineage.store import read_log, writing
from ffd_continual.lineage.upkeep import size_of
from ffd_continual.replay.stored import stored_rows
from ffd_continual.run import resume, start
from ffd_continual.runs.checkpoint import load_checkpoint
from ffd_continual.runs.folder import RunFolder
from ffd_continual.scenarios.errors import FFDError

TRUNK = {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 2}
QUICK = ["--steps", "2", "--tolerance", "1", "--any-picture"]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, tiny_faces: Path) -> Path:
    """Version 1 knows alpha, version 2 beta, too; the data of version 1 are gone since it was adopted."""
    folder = tmp_path_factory.mktemp("lineage")
    data = folder / "data"
    shutil.copytree(tiny_faces.parent, data)
    config = config_from(
        {
            "name": "tiny",
            "scenario": {"data": str(data), "order": ["alpha"], "unseen": ["gamma"], "size": 32},
            "learner": {"name": "plain", "trunk": TRUNK},
            "strategy": {"name": "replay", "exemplars": 8},
            "train": {"steps": 2, "batch": 8, "threads": 1, "eval_batch": 32, "device": "cpu"},
            "evaluation": {"bootstrap": 20, "samples": 1, "controls": False},
        }
    )
    start(config, folder / "run")
    adopt(folder / "run", folder / "det", kept=4)
    shutil.rmtree(folder / "run")
    shutil.rmtree(data)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    assert cli.main(["add", str(folder / "det"), "--forgery", "beta", "--data", str(tiny_faces), *QUICK]) == 0
    return folder / "det"


@pytest.fixture
def lineage(grown: Path, tmp_path: Path) -> Lineage:
    """A copy to do things to, at another place."""
    shutil.copytree(grown, tmp_path / "det")
    return open_lineage(tmp_path / "det")


def _memory(lineage: Lineage, number: int) -> tuple[np.ndarray, list[str]]:
    last = len(lineage.about(number)["experiences"]) - 1
    checkpoint = load_checkpoint(RunFolder(lineage.run(number)).after(last))
    return stored_rows(strategy_state(checkpoint)), checkpoint.meta["growth"]


def test_a_version_learns_from_exemplars_and_new_faces_only(grown: Path, tiny_faces: Path) -> None:
    lineage = open_lineage(grown)
    assert lineage.versions() == [1, 2]
    assert lineage.promoted() == 2
    assert lineage.run() == lineage.folder(2)
    about = lineage.about(2)
    assert (about["kind"], about["parent"], about["forgery"]) == ("add", 1, "beta")
    assert about["faces"]["train"] == 24  # 12 persons, real and forged: alpha's were not there to be read
    rows, growth = _memory(lineage, 2)
    assert growth == ["alpha", "beta"]
    stored = lineage.table(2, "exemplars.parquet")
    assert rows.tolist() == list(range(8)) == list(range(len(stored)))
    assert set(stored["experience"]) == {"alpha", "beta"}
    assert all(Path(path).is_file() and Path(path).is_relative_to(grown) for path in stored["path"])
    for name in ("path", "mask", "pair"):  # nothing that is copied lies anywhere else
        cells = pd.read_parquet(lineage.folder(2) / "exemplars.parquet")[name]
        assert all(cell == "" or cell.startswith("faces/") for cell in cells)
    assert [p.name for p in (lineage.run() / "checkpoints").iterdir()] == ["after_001"]


def test_predictions_that_stay_are_shared_and_no_version_can_change_anothers(
    lineage: Lineage, tiny_faces: Path
) -> None:
    before = {path: path.read_bytes() for n in (1, 2) for path in (lineage.folder(n) / "predictions").iterdir()}
    words = ["add", str(lineage.path), "--forgery", "delta", "--data", str(tiny_faces), *QUICK]
    data = pd.read_csv(tiny_faces).query("forgery in ('real', 'beta')")
    manifest = tiny_faces.with_name("delta.csv")
    data.assign(forgery=data["forgery"].replace("beta", "delta")).to_csv(manifest, index=False)
    words[5] = str(manifest)
    assert cli.main(words) == 0
    assert {path: path.read_bytes() for path in before} == before, "versions 1 and 2 are as they were"
    second, third = (RunFolder(lineage.folder(n)) for n in (2, 3))
    assert os.path.samefile(second.predictions(0), third.predictions(0))
    assert not os.path.samefile(second.predictions(1), third.predictions(1)), "delta joined there"
    whole = pd.concat([pd.read_parquet(third.predictions(i)) for i in range(-1, 3)], ignore_index=True)
    pd.testing.assert_frame_equal(whole, pd.read_parquet(third.path / "predictions.parquet"))
    total, everything = size_of(lineage), [path for path in lineage.path.rglob("*") if path.is_file()]
    assert total < sum(path.stat().st_size for path in everything), "a shared file counts once"
    assert cli.main(["forget", str(lineage.path), "--identity", "p002"]) == 0
    for folder in (second, third):
        assert "p002" not in set(pd.read_parquet(folder.predictions(0))["identity"])


def test_a_version_is_measured_on_everything_earlier(grown: Path) -> None:
    lineage = open_lineage(grown)
    first, second = (pd.read_parquet(RunFolder(lineage.folder(n)).predictions(0)) for n in (1, 2))
    same = second[second["on"] != "beta"].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, same)  # what version 1 said is part of version 2's matrix, unchanged
    assert set(second["on"]) == {"alpha", "beta", "gamma"}  # and it was asked about beta before beta was learnt
    last = pd.read_parquet(RunFolder(lineage.folder(2)).predictions(1))
    old = first[first["on"] == "alpha"].set_index("row")["label"].sort_index()
    new = last[last["on"] == "alpha"].set_index("row")["label"].sort_index()
    pd.testing.assert_series_equal(old, new)
    assert set(last["stream"]) == {"test", "unseen"}
    assert last["path"].str.startswith("faces/").all()
    drop = next(d for d in lineage.about(2)["drops"] if d["name"] == "alpha")
    matrix = pd.read_parquet(lineage.run() / "matrix.parquet")
    auc = matrix[(matrix["metric"] == "auc") & (matrix["on"] == "alpha")].set_index("after")["value"]
    assert drop["drop"] == pytest.approx(auc[0] - auc[1])
    assert (lineage.run() / "detector.json").is_file()
    seconds = lineage.about(2)["seconds"]
    assert min(seconds["train"], seconds["measure"]) > 0
    with pytest.raises(FFDError, match="is a version of a lineage"):
        resume(lineage.run())


def test_listed_compared_and_on_one_page(grown: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["versions", str(grown)]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["1", "2"]
    assert "in use" in text.splitlines()[3]
    assert cli.main(["versions", str(grown), "--compare", "1", "2"]) == 0
    text = capsys.readouterr().out
    drop = next(d for d in open_lineage(grown).about(2)["drops"] if d["name"] == "alpha")["drop"]
    line = next(line for line in text.splitlines() if line.startswith("alpha"))
    assert f"{-drop:+.3f}" in line
    assert any(line.startswith("unseen gamma") for line in text.splitlines())
    assert cli.main(["versions", str(grown), "--compare", "1", "7"]) == 2
    assert "has no version 7. Known: 1, 2" in capsys.readouterr().err
    page = (grown / "report.html").read_text()
    assert page.count("<svg") >= 2 * 3 + 3
    assert 'href="versions/0002/report/report.html"' in page
    assert "http" not in page


def test_a_refused_candidate_is_kept_and_not_used(
    lineage: Lineage, tiny_faces: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [Drop("alpha", 0.9, 0.4, 0.5, 0.3, 0.7, 14), Drop("mean", 0.9, 0.4, 0.5, 0.3, 0.7, 14)]
    monkeypatch.setattr(lineage_grow, "drops", lambda *_, **__: bad)
    words = ["add", str(lineage.path), "--forgery", "gamma", "--data", str(tiny_faces), "--steps", "1", "--any-picture"]
    assert cli.main(words) == 3
    text = capsys.readouterr().out
    assert "REFUSED: version 3" in text
    assert "alpha fell by 0.500" in text
    assert "gamma was an unseen forgery" in text.replace("\n", " ")
    assert lineage.versions() == [1, 2, 3]
    assert lineage.promoted() == 2
    assert lineage.about(3)["unseen"] == []
    assert cli.main(["rollback", str(lineage.path), "3"]) == 2
    assert "was refused" in capsys.readouterr().err
    assert cli.main(["rollback", str(lineage.path), "1"]) == 0
    assert open_lineage(lineage.path).promoted() == 1
    assert cli.main(["rollback", str(lineage.path), "3", "--anyway"]) == 0
    assert cli.main(["rollback", str(lineage.path), "2"]) == 0
    before = sum(p.stat().st_size for p in lineage.path.rglob("*") if p.is_file())
    assert cli.main(["prune", str(lineage.path), "--keep", "1"]) == 0  # 2 is in use, 1 its parent, 3 the newest
    assert "nothing to prune" in capsys.readouterr().out
    assert cli.main(["rollback", str(lineage.path), "1"]) == 0
    assert cli.main(["prune", str(lineage.path), "--keep", "1"]) == 0
    assert not lineage.has_weights(2)
    assert sum(p.stat().st_size for p in lineage.path.rglob("*") if p.is_file()) < before
    with pytest.raises(FFDError, match="version 2 .* was pruned"):
        lineage.run(2)
    assert lineage.versions() == [1, 2, 3]
    assert cli.main(["versions", str(lineage.path), "--compare", "1", "2"]) == 0  # figures outlive weights
    events = [(e["event"], e["version"]) for e in read_log(lineage)]
    assert events[-6:] == [
        ("add", 3), ("rollback", 1), ("rollback", 3), ("rollback", 2), ("rollback", 1), ("prune", 2),
    ]  # fmt: skip
    assert all("@" in e["who"] and e["time"].endswith("Z") for e in read_log(lineage))


def test_an_interrupted_addition_goes_on_or_is_dropped(
    lineage: Lineage, tiny_faces: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["add", str(lineage.path), "--forgery", "gamma", "--data", str(tiny_faces), *QUICK]
    with monkeypatch.context() as patch:

        def stop(*given: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("ffd_continual.lineage.judging.measure", stop)
        assert cli.main(words) == 130
    assert f"ffd add {lineage.path} --resume" in capsys.readouterr().err
    assert lineage.versions() == [1, 2]
    learnt = load_checkpoint(RunFolder(lineage.candidate).after(2))
    assert cli.main(words) == 2
    assert "an addition of gamma" in capsys.readouterr().err
    assert cli.main(["forget", str(lineage.path), "--identity", "p000"]) == 2
    assert "is under way" in capsys.readouterr().err
    shutil.copytree(lineage.path, lineage.path.with_name("other"))
    assert cli.main(["add", str(lineage.path), "--resume"]) == 0
    assert lineage.promoted() == 3
    assert not lineage.candidate.exists()
    sealed = load_checkpoint(RunFolder(lineage.run()).after(2))
    own = [name for name in learnt.tensors if name.startswith("learner.")]
    assert len(own) > 10
    assert all(np.array_equal(sealed.tensors[n].numpy(), learnt.tensors[n].numpy(), equal_nan=True) for n in own)
    other = open_lineage(lineage.path.with_name("other"))
    pictures = len(list(other.faces.rglob("*.png")))
    assert cli.main(["add", str(other.path), "--abandon"]) == 0
    assert other.versions() == [1, 2]
    assert not other.candidate.exists()
    assert 0 < len(list(other.faces.rglob("*.png"))) <= pictures
    assert cli.main(["add", str(other.path), "--resume"]) == 2


def _add_in_process(words: list[str]) -> None:
    cli.main(words)


def test_a_killed_addition_resumes_to_the_same_bits(lineage: Lineage, tiny_faces: Path) -> None:
    """SIGKILL inside training; the resumed version judges exactly as one that was never stopped."""
    whole = open_lineage(Path(shutil.copytree(lineage.path, lineage.path.with_name("whole"))))
    words = ["--forgery", "gamma", "--data", str(tiny_faces), "--steps", "12", "--tolerance", "1", "--any-picture"]
    words += ["--set", "checkpoint.steps=2", "--set", "evaluation.bootstrap=0"]
    assert cli.main(["add", str(whole.path), *words]) == 0
    process = multiprocessing.get_context("fork").Process(
        target=_add_in_process, args=(["add", str(lineage.path), *words],)
    )
    process.start()
    inside = RunFolder(lineage.candidate).safe_points
    while process.is_alive() and not list(inside.glob("e002_s0000004")):
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert lineage.candidate.is_dir()
    assert lineage.versions() == [1, 2]
    assert cli.main(["add", str(lineage.path), "--resume"]) == 0
    one, two = (pd.read_parquet(RunFolder(det.run(3)).predictions(2)) for det in (lineage, whole))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    one, two = (load_checkpoint(RunFolder(det.run(3)).after(2)) for det in (lineage, whole))
    assert all(one.tensors[n].numpy().tobytes() == two.tensors[n].numpy().tobytes() for n in two.tensors)


def test_a_kill_between_number_and_log_is_made_up_for(lineage: Lineage, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lineage.log.read_text().splitlines(keepends=True)
    lineage.log.write_text("".join(lines[:-1]) + '{"time": "2026')  # the line of version 2 is cut short
    (lineage.path / "promoted").write_text("1\n")
    with writing(lineage.path):
        pass
    assert lineage.promoted() == 2
    last = read_log(lineage)[-1]
    assert (last["event"], last["version"], last["made_up"]) == ("add", 2, True)


def _hold(path: Path, talk: Connection) -> None:
    with writing(path):
        talk.send("held")
        talk.recv()


def test_two_writers_in_two_processes(lineage: Lineage, capsys: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    holder = context.Process(target=_hold, args=(lineage.path, theirs))
    holder.start()
    assert mine.recv() == "held"
    assert cli.main(["rollback", str(lineage.path), "1"]) == 2
    said = capsys.readouterr().err
    assert f"is being written by process {holder.pid}" in said
    assert lineage.promoted() == 2
    assert cli.main(["versions", str(lineage.path)]) == 0  # reading needs no lock
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert cli.main(["rollback", str(lineage.path), "1"]) == 0  # a killed writer leaves no lock behind


def test_a_person_is_forgotten_everywhere(lineage: Lineage, capsys: pytest.CaptureFixture[str]) -> None:
    stored = lineage.table(2, "exemplars.parquet")
    taught = str(stored["identity"].iloc[3])
    tested = "p023"
    for person in (taught, tested):
        assert search(lineage, {person})
        assert cli.main(["forget", str(lineage.path), "--identity", person]) == 0
        text = capsys.readouterr().out
        assert "finds no name, hash or path of them" in text.replace("\n", " ")
        assert ("In weights there remains" in text) == (person == taught)
        assert not search(lineage, {person})
    for path in lineage.path.rglob("*.parquet"):
        for column in (c for c in ("identity", "source_identity", "person") if c in pd.read_parquet(path)):
            assert not pd.read_parquet(path)[column].isin([taught, tested]).any(), path
    rows, _ = _memory(lineage, 2)
    left = lineage.table(2, "exemplars.parquet")
    assert rows.tolist() == list(range(len(left)))
    assert left["source"].tolist() == stored.loc[stored["identity"] != taught, "source"].tolist()
    last = read_log(lineage)[-1]
    assert last["event"] == "forget"
    assert tested not in json.dumps(last)
    assert cli.main(["forget", str(lineage.path), "--identity", taught]) == 2
    assert "no face of this person" in capsys.readouterr().err


def test_who_was_forgotten_does_not_come_back(lineage: Lineage, tiny_faces: Path) -> None:
    assert cli.main(["forget", str(lineage.path), "--identity", "p001"]) == 0
    with writing(lineage.path):
        plan = begin(lineage, Addition(tiny_faces, "gamma", any_picture=True))
    assert any("told to forget" in note for note in plan.notes)
    assert not search(lineage, {"p001"})
    rows = pd.read_parquet(lineage.candidate / "faces.parquet")
    assert {"p002", "p003"} <= set(rows["identity"])
    shown = capped(rows, 6).groupby(["stream", "label"]).size()
    assert shown["test", 0] == shown["test", 1] == 3  # a cap of six is three of each
    again = capped(rows.iloc[::-1].reset_index(drop=True), 6)
    assert set(again["path"]) == set(capped(rows, 6)["path"])  # the same ones in whatever order


@pytest.mark.slow
def test_one_picture_is_forgotten_by_its_hash(lineage: Lineage) -> None:
    rows = pd.read_parquet(lineage.folder(1) / "faces.parquet")
    test = rows[(rows["stream"] == "test") & (rows["label"] == 1)].iloc[0]
    digest = Path(test["path"]).stem
    before = pd.read_parquet(lineage.folder(2) / "predictions.parquet")
    assert (before["row"] == test["manifest_row"]).any()
    assert cli.main(["forget", str(lineage.path), "--sha256", digest]) == 0
    after = pd.read_parquet(lineage.folder(2) / "predictions.parquet")
    assert not (after["row"] == test["manifest_row"]).any()
    assert len(after) == len(before) - (before["row"] == test["manifest_row"]).sum()
    assert not (lineage.path / test["path"]).exists()


def test_labels_are_corrected_by_learning_again_from_the_parent(
    lineage: Lineage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = lineage.table(2, "faces.parquet")
    wrong = rows[(rows["stream"] == "train") & (rows["label"] == 1)].iloc[0]
    labels = tmp_path / "fixed.csv"
    labels.write_text(f"path,label\n{wrong['source']},real\n")
    assert cli.main(["correct", str(lineage.path), "--labels", str(labels), "--tolerance", "1", "--steps", "1"]) == 0
    assert lineage.promoted() == 3
    about = lineage.about(3)
    assert (about["kind"], about["parent"], about["experiences"]) == ("correct", 1, ["alpha", "beta"])
    mended = lineage.table(3, "faces.parquet")
    mine = mended[(mended["manifest_row"] == wrong["manifest_row"]) & (mended["stream"] == "train")].iloc[0]
    assert (mine["label"], mine["forgery"], mine["mask"]) == (0, "real", "")
    assert [e["event"] for e in read_log(lineage)][-2:] == ["begin correction", "correct"]
    for text, said in (
        ("path,label\nnobody.png,real\n", "are not among those"),
        (f"path,label\n{wrong['source']},0\n", "nothing to correct"),
        ("path,label\na.png,perhaps\n", "neither 0 / real nor 1 / forged"),
        ("picture\na.png\n", "needs the columns label and path"),
    ):
        labels.write_text(text)
        capsys.readouterr()
        assert cli.main(["correct", str(lineage.path), "--labels", str(labels)]) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["rollback", str(lineage.path), "1"]) == 0
    assert cli.main(["correct", str(lineage.path), "--labels", str(labels)]) == 2
    assert "was adopted from a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda det: (det / "lineage.json").write_text('{"format": 9}'), "lineage of format 9"),
        (lambda det: (det / "lineage.json").unlink(), "is not a lineage"),
        (lambda det: (det / "promoted").write_text("8"), "names version 8, which is not there. Known: 1, 2"),
        (lambda det: (det / "promoted").write_text("?"), "does not name a version"),
        (lambda det: (det / "versions" / "0002" / "version.json").write_text("{"), "the lineage is damaged"),
        (
            lambda det: (det / "versions" / "0002" / "config.yaml").write_text("from_the_future: 1\n"),
            "unknown key from_the_future",
        ),
        (
            lambda det: next((det / "versions" / "0002" / "checkpoints").glob("*/*.safetensors")).write_bytes(b"x"),
            "version 2 is damaged. Restore",
        ),
    ],
)
def test_a_damaged_lineage(
    lineage: Lineage, tiny_faces: Path, change: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(lineage.path)  # type: ignore[operator]
    assert cli.main(["add", str(lineage.path), "--forgery", "gamma", "--data", str(tiny_faces)]) == 2
    assert said in capsys.readouterr().err
    assert not lineage.candidate.exists()


def test_what_an_addition_refuses(
    lineage: Lineage, tiny_faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str) -> str:
        assert cli.main(["add", str(lineage.path), "--any-picture", *words]) == 2
        assert not lineage.candidate.exists()
        return capsys.readouterr().err

    data = ["--data", str(tiny_faces)]
    assert "knows 'beta' already" in said("--forgery", "beta", *data)
    assert "is not 'real'" in said("--forgery", "real", *data)
    assert "--data is missing" in said("--forgery", "gamma")
    assert "an addition can change train.*" in said("--forgery", "gamma", *data, "--set", "learner.dropout=0.5")
    assert "between 0 and 1" in said("--forgery", "gamma", *data, "--tolerance", "5")
    assert "--steps must be at least 1" in said("--forgery", "gamma", *data, "--steps", "0")
    assert "unknown key train.stepz" in said("--forgery", "gamma", *data, "--set", "train.stepz=3")
    stored = lineage.table(2, "exemplars.parquet")
    Path(stored["path"].iloc[0]).unlink()
    assert f"of {len(stored)} exemplars of version 2 are missing" in said("--forgery", "gamma", *data)
    faces = lineage.table(1, "faces.parquet")
    Path(faces.loc[faces["stream"] == "test", "path"].iloc[0]).unlink()
    missing = said("--forgery", "gamma", *data, "--without-missing").replace("\n", " ")
    assert "1 of " in missing
    assert "put them back from a copy" in missing
    assert cli.main(["adopt", str(tmp_path), str(tmp_path / "new")]) == 2
    assert cli.main(["adopt", str(lineage.folder(1)), str(tmp_path / "new")]) == 2
    assert "is a version of a lineage already" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_search_takes_no_number_for_a_name(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>Of 1,000 faces</p>", encoding="utf-8")
    assert search(Lineage(tmp_path), {"000"}) == []
    (tmp_path / "page.html").write_text("<p>Of 1,000 faces, person 000 has two</p>", encoding="utf-8")
    (tmp_path / "rows.csv").write_text("row,person\n1,000\n", encoding="utf-8")
    assert search(Lineage(tmp_path), {"000"}) == ["page.html: its text", "rows.csv: its text"]
