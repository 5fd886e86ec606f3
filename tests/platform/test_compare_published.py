"""Published figures stand beside runs on the data they were measured on, and beside no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ffd_continual.cli import main
from ffd_continual.comparing.finished import methods_of, read_runs
from ffd_continual.comparing.published import protocol_of, published_beside
from ffd_continual.config import config_from, to_mapping
from ffd_continual.protocols import joined_path, protocol_config, read_protocol
from ffd_continual.scenarios.manifest import write_manifest

DFIL = ("ffpp", "dfdcp", "dfd", "cdf2")
# a[i, j] of ACC: learnt at 0.9, 0.8, 0.7, 0.6, and each loses 0.1 a step
CELLS = {(i, j): 0.9 - 0.1 * j - 0.1 * (i - j) for i in range(4) for j in range(4)}


def _finished(folder: Path, config: dict[str, Any], datasets: tuple[str, ...] = DFIL) -> Path:
    """A finished run of this resolved configuration, with the matrix above."""
    folder.mkdir(parents=True)
    scenario = config["scenario"]
    order, unseen = list(scenario["order"]), list(scenario["unseen"])
    faces, cells = [], []
    for after in range(len(order)):
        for j, (stream, on) in enumerate([("test", n) for n in order] + [("unseen", n) for n in unseen]):
            for label in (0, 1):
                row = {"after": after, "on": on, "stream": stream, "label": label, "z": float(label), "row": label}
                faces.append({**row, "path": f"{on}/{label}.png", "identity": f"p{label}", "video": f"v{label}"})
            acc = CELLS.get((after, j), 0.5)
            for metric, level, value in (("acc", "frame", acc), ("auc", "frame", acc - 0.01), ("auc", "video", 0.77)):
                cells.append([after, on, stream, metric, level, value, value, value])
    pd.DataFrame(faces).to_parquet(folder / "predictions.parquet")
    columns = ["after", "on", "stream", "metric", "level", "value", "low", "high"]
    pd.DataFrame(cells, columns=columns).to_parquet(folder / "matrix.parquet")
    auc = {"aa": 0.6, "aa_curve": {"after": [0], "value": [0.6]}, "unseen_curve": {"after": [0], "value": [0.5]}}
    summary = {"order": order, "after": len(order) - 1, "unseen_streams": unseen, "auc": auc, "acc": {"aa": 0.6}}
    (folder / "summary.json").write_text(json.dumps({**summary, "datasets": sorted(datasets)}), encoding="utf-8")
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """The resolved configuration of `ffd run protocols/NAME`, with a tiny manifest in each place that it names."""
    monkeypatch.chdir(tmp_path)

    def made(name: str) -> dict[str, Any]:
        for place in {data.manifest for data in read_protocol(name).data.values()}:
            rows = [
                {"path": f"{split}{label}.png", "label": label, "forgery": "f" if label else "real", "split": split,
                 "identity": f"{place}{split}", "video": f"{split}{label}"}
                for split in ("train", "valid", "test") for label in (0, 1)
            ]  # fmt: skip
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            write_manifest(pd.DataFrame(rows), Path(place))
        return to_mapping(config_from(protocol_config(name)))

    return made


def test_a_run_on_the_protocol_s_data_has_them(
    official: Callable[[str], dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = official("dfil")
    assert config["protocol"] == "dfil"
    assert config["scenario"]["data"] == "data/protocols/dfil.parquet"
    for seed in (0, 1):
        _finished(tmp_path / "runs" / f"iin-s{seed}", {**config, "seed": seed})
    runs, _ = read_runs([tmp_path / "runs"])
    name, lines = published_beside(methods_of(runs))
    assert name == "protocols/dfil"
    assert len(lines) == 8
    assert [one.method for one in lines[:3]] == ["SI", "LwF", "ER"]
    dfil = next(one for one in lines if one.method == "DFIL")
    source = "DevFD (NeurIPS 2025), Table 1, left"
    assert [*dfil[1:]] == ["ACC", "", pytest.approx(0.8549), pytest.approx(0.0701), source]
    # at the end: .9 - .3, .8 - .2, .7 - .1, .6; lost since: .3, .2, .1
    assert [*lines[-1]] == ["iin", "ACC", "", pytest.approx(0.6), pytest.approx(0.2), ""]

    assert main(["compare", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert max(len(line) for line in said.splitlines() if not line.startswith("comparison:")) <= 80
    assert "published figures for protocols/dfil" in said
    out = tmp_path / "runs" / "comparison"
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert "<h2>Published figures</h2>" in page
    assert "DevFD (NeurIPS 2025), Table 1, left" in page
    figures = page.split("<h2>Published figures</h2>")[0]
    assert "CoReD" not in figures  # set apart: no row of a paper among ours
    assert "### Published" in (out / "comparison.md").read_text(encoding="utf-8")
    assert list(pd.read_csv(out / "published.csv")["method"])[-1] == "iin"
    assert "CoReD" not in (out / "comparison.csv").read_text(encoding="utf-8")


def test_streams_and_levels_of_their_own(
    official: Callable[[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:  # its official lists of videos are not made here
        patched.setattr("ffd_continual.protocols.join_data", joined_path)
        config = to_mapping(config_from(protocol_config("cross_set")))
    cross = _finished(tmp_path / "cross", config, ("ffpp", "cdf", "dfdc", "dfd", "wdf"))
    _, lines = published_beside(methods_of(read_runs([cross])[0]))
    assert {one.on for one in lines} == {"cdf", "dfdc", "dfd", "wdf"}
    assert [one.method for one in lines if one.on == "cdf"] == ["DCL", "Guide-Space", "LLSM", "cross_set"]
    mine = {one.on: one.value for one in lines if not one.source}
    assert mine["cdf"] == pytest.approx(0.9 - 0.01)  # the one experience, its second stream: .9 - .1 + .1
    videos = _finished(tmp_path / "videos", official("msfd_di"), ("ffpp", "dfd", "cdf", "dfdcp", "ffiw", "kodf"))
    _, lines = published_beside(methods_of(read_runs([videos])[0]))
    assert [*lines[-1][1:5]] == ["video AUC", "", pytest.approx(0.77), pytest.approx(0.0)]


@pytest.mark.parametrize(
    "changed",
    [
        {"protocol": ""},
        {"protocol": "cddb/easy"},
        {"protocol": "nothing_of_this_name"},
        {"scenario.data": "studio"},
        {"scenario.data": "/mine/dfil.parquet"},
        {"scenario.order": ["dfdcp", "ffpp", "dfd", "cdf2"]},
        {"scenario.unseen": ["other"]},
        {"scenario.reals": "shared"},
        {"scenario.profiles": {"*": "camera1"}},
        {"scenario.judged": "valid"},
        {"scenario.labels": "shuffled"},
        {"scenario.permuted": 0},
        {"datasets": ["ffpp", "dfdcp", "dfd"]},
        {"datasets": [*DFIL, "studio"]},
    ],
)
def test_other_data_have_none(
    changed: dict[str, Any], official: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    config, datasets = official("dfil"), DFIL
    for key, value in changed.items():
        place, _, last = key.rpartition(".")
        if key == "datasets":
            datasets = tuple(value)
        else:
            (config[place] if place else config)[last] = value
    runs, _ = read_runs([_finished(tmp_path / "run", config, datasets)])
    assert protocol_of(runs[0]) is None
    assert published_beside(methods_of(runs)) == ("", [])


def test_a_miniature_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = to_mapping(config_from(protocol_config("dfil", studio=True)))
    assert config["protocol"] == ""
    run = _finished(tmp_path / "dfil-studio", config, DFIL)
    assert main(["compare", str(run), "--out", str(tmp_path / "out")]) == 0
    assert "published" not in capsys.readouterr().out
    assert "Published" not in (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "Published" not in (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / "published.csv").exists()


def test_own_manifests_and_mixed_runs_have_none(official: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    config = official("dfil")
    own = to_mapping(config_from(protocol_config("dfil", data="data/protocols/dfil.parquet")))
    assert own["protocol"] == ""
    one = _finished(tmp_path / "one-s0", config)
    two = _finished(tmp_path / "two-s0", {**config, "protocol": ""})
    runs, _ = read_runs([one, two])
    assert protocol_of(runs[0]) is not None
    assert published_beside(methods_of(runs)) == ("", [])
