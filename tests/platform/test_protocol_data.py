"""Protocols on data that lie where they should: several data sets joined, each with its own real faces."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from ffd_continual.config import RunConfig, apply_sets, config_from
from ffd_continual.protocols import DataSet, join_data, missing, protocol_config, read_protocol
from ffd_continual.scenarios.manifest import read_manifest
from ffd_continual.scenarios.streams import build_scenario

JOINED = ["cddb/easy", "cddb/hard", "cddb/long", "cross_set", "dfil", "msfd_di", "sur_lid_p1", "sur_lid_p2"]


def _stand_in(tiny: Path, data: DataSet) -> None:
    """A copy of the tiny faces, other people by name, laid out as a data set of the protocol asks."""
    folder = Path(data.manifest).parent
    shutil.copytree(tiny.parent, folder)
    table = pd.read_csv(folder / "manifest.csv").fillna("")
    (folder / "manifest.csv").unlink()
    kinds = list(data.forgeries) or ["alpha"]
    source = ["alpha", "beta", "gamma", "gamma"]  # one stripe may stand for two forgeries
    parts = [table[table["label"] == 0]]
    parts += [table[table["forgery"] == there].assign(forgery=k) for k, there in zip(kinds, source, strict=False)]
    table = pd.concat(parts, ignore_index=True)
    table["identity"] = folder.name + table["identity"]
    named = zip(table["identity"], table["forgery"], strict=True)
    table["video"] = [person if kind == "real" else f"{person}_{kind}" for person, kind in named]
    table.assign(**data.where).to_parquet(folder / "manifest.parquet")
    if data.splits:
        Path(data.splits).mkdir()
        for split, file in (("train", "train.json"), ("valid", "val.json"), ("test", "test.json")):
            people = sorted(set(table.loc[table["split"] == split, "identity"]))
            (Path(data.splits) / file).write_text(json.dumps(people))


def _config(name: str, tiny: Path) -> RunConfig:
    protocol = read_protocol(name)
    for data in protocol.data.values():
        if not Path(data.manifest).parent.exists():
            _stand_in(tiny, data)
    assert missing(protocol) == []
    sets = [
        "scenario.size=32",
        "learner={name: plain, trunk: {backbone: test_efficientnet, weights: none, frozen_stages: 2}}",
        "strategy={name: replay, exemplars: 8}",
        "train={steps: 2, batch: 8, threads: 1, eval_batch: 32, device: cpu}",
        "evaluation={bootstrap: 0, samples: 1, controls: false}",
    ]
    return config_from(apply_sets(protocol_config(name), sets))


@pytest.mark.parametrize("name", JOINED)
def test_each_stream_holds_its_data_set_s_real_faces(
    name: str, tiny_faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = _config(name, tiny_faces)
    assert config.scenario.reals == "dataset"
    scenario = build_scenario(read_manifest(config.scenario.data), config.scenario)
    seen = set()
    for (stream, entry), part in scenario.rows.groupby(["stream", "experience"]):
        home = "ffpp" if "+" in entry else entry  # all that is joined by + comes from FaceForensics++
        for label in (0, 1):
            assert set(part.loc[part["label"] == label, "dataset"]) == {home}
        assert set(part["identity"]) <= set(scenario.rows.loc[scenario.rows["dataset"] == home, "identity"])
        seen.add((stream, entry))
    assert len(seen) == 3 * len(scenario.experiences) + len(scenario.unseen)
    assert len(scenario.experiences) + len(scenario.unseen) == len(read_protocol(name).data)


def test_few_videos_of_later_data_sets(tiny_faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _config("dfil", tiny_faces)
    whole = read_manifest(join_data(read_protocol("dfil"))).table  # 12 training people, 25 videos are asked for
    few = read_manifest(join_data(dataclasses.replace(read_protocol("dfil"), videos=5))).table
    for dataset in ("ffpp", "dfdcp", "dfd", "cdf2"):
        for split in ("train", "valid", "test"):
            for label in (0, 1):
                all_of, left = (
                    set(t.loc[(t["dataset"] == dataset) & (t["split"] == split) & (t["label"] == label), "video"])
                    for t in (whole, few)
                )
                assert len(left) == (5 if split == "train" and dataset != "ffpp" else len(all_of))
                assert left <= all_of
    assert len(whole[whole["split"] == "train"]) == 4 * 24


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cross_set", "dfil"])
def test_joined_data_run_to_the_end(
    name: str, tiny_faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ffd_continual.run import start

    monkeypatch.chdir(tmp_path)
    config = _config(name, tiny_faces)
    start(config, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert len(summary["order"]) == len(config.scenario.order)
    assert 0.0 <= summary["auc"]["aa"] <= 1.0
    if config.scenario.unseen:
        assert 0.0 <= summary["auc"]["unseen"] <= 1.0
