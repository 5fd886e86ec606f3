"""Protocols: every file holds together, its miniature has its structure, and real data are joined as it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ffd_continual import cli
from ffd_continual.config import RunConfig, apply_sets, config_from
from ffd_continual.protocols import (
    by_date,
    described,
    join_data,
    known_protocols,
    missing,
    protocol_config,
    read_protocol,
    state_of,
)
from ffd_continual.published import METRICS
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.forging.contract import FAMILIES
from ffd_continual.scenarios.manifest import Manifest, make_manifest, read_manifest
from ffd_continual.scenarios.streams import build_scenario
from ffd_continual.sweeping.grid import Grid, make_cells

ROOT = Path(__file__).resolve().parents[2]
# experiences and unseen of each protocol, as its source gives them
SHAPES = {
    "cddb/easy": (7, 0),
    "cddb/hard": (5, 0),
    "cddb/long": (12, 0),
    "chronological": (5, 0),
    "cross_set": (1, 4),
    "dfil": (4, 0),
    "msfd_di": (6, 0),
    "sur_lid_p1": (4, 0),
    "sur_lid_p2": (4, 0),
    **{f"ff_types/{quality}": (4, 0) for quality in ("c23", "c40")},
    **{f"cross_type/{one}": (1, 3) for one in ("deepfakes", "face2face", "faceswap", "neuraltextures")},
    **{
        f"gid/{left}-{quality}": (1, 1)
        for left in ("deepfakes", "face2face", "faceswap", "neuraltextures")
        for quality in ("c23", "c40")
    },
}


def _all_ways() -> set[str]:
    ways = set()
    for name in known_protocols():
        variants = read_protocol(name).variants
        ways |= {f"{name}/{variant}" for variant in variants} if variants else {name}
    return ways


@pytest.fixture(scope="module")
def rendered() -> Manifest:
    """A studio set's table, without its pictures: every family once of every person."""
    rows = [
        {
            "path": f"{kind}/{p:03d}.png",
            "label": int(kind != "real"),
            "forgery": kind,
            "identity": f"p{p:03d}",
            "split": s,
        }
        for p in range(240)
        for s in ["train" if p < 168 else "valid" if p < 204 else "test"]
        for kind in ("real", *FAMILIES)
    ]
    return make_manifest(pd.DataFrame(rows), "nowhere")


def test_every_protocol_and_variant_is_here() -> None:
    assert _all_ways() == set(SHAPES)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_miniature_has_the_protocols_structure(name: str, rendered: Manifest) -> None:
    config = config_from(protocol_config(name, studio=True))
    assert config.scenario.data == "studio"
    used = {part for entry in (*config.scenario.order, *config.scenario.unseen) for part in entry.split("+")}
    assert used <= set(FAMILIES)
    faces = rendered.subset(rendered.table["forgery"].isin({"real", *used}).to_numpy())
    scenario = build_scenario(faces, config.scenario)
    assert (len(scenario.experiences), len(scenario.unseen)) == SHAPES[name]
    run = read_protocol(name).run["scenario"]
    if run.get("order") != "by date":
        families = read_protocol(name).studio.families
        stands = ["+".join(families[part] for part in entry.split("+")) for entry in run["order"]]
        assert list(scenario.experiences) == stands
        config_from({"name": "real", **read_protocol(name).run})  # the run on real data is a configuration, too


def test_a_family_stands_for_one_thing() -> None:
    for name in known_protocols():
        families = [part for entry in read_protocol(name).studio.families.values() for part in entry.split("+")]
        assert len(families) == len(set(families)), name


def test_known_orders() -> None:
    assert read_protocol("ff_types").run["scenario"]["order"] == [
        "deepfakes",
        "face2face",
        "faceswap",
        "neuraltextures",
    ]
    assert read_protocol("dfil").run["scenario"]["order"] == ["ffpp", "dfdcp", "dfd", "cdf2"]
    assert read_protocol("dfil").videos == 25
    assert read_protocol("dfil").run["strategy"]["exemplars"] == 500
    assert read_protocol("gid/faceswap-c40").run["scenario"]["unseen"] == ["faceswap"]
    assert read_protocol("gid/faceswap-c40").data["ffpp"].where == {"compression": "c40"}
    assert read_protocol("ff_types").data["ffpp"].where == {"compression": "c23"}  # the first variant


def test_published_rows_have_a_source_and_a_stream() -> None:
    count = 0
    for name in SHAPES:
        protocol = read_protocol(name)
        scenario = protocol.run["scenario"]
        for row in protocol.published:
            assert row.source
            assert row.metric in METRICS
            assert 0 < row.value <= 100
            assert row.stream in ("", *scenario.get("unseen", []))
            assert (row.forgetting is None) == bool(row.stream)
        count += len(protocol.published)
    assert count == 7 + 3 + 8 + 8
    one = next(row for row in read_protocol("dfil").published if row.method == "DFIL")
    assert (one.metric, one.value, one.forgetting) == ("ACC", 85.49, 7.01)


def test_by_date() -> None:
    assert by_date({"c": "2021", "a": "2019-06", "b": "2019-05-30"}) == ["b", "a", "c"]
    assert by_date({"b": "2019", "a": "2019"}) == ["a", "b"]
    with pytest.raises(FFDError, match="no face of b has a date"):
        by_date({"a": "2019", "b": ""})


def test_list_says_what_is_missing_where(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["list", "protocols"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 79
    assert "missing: data/faceforensics/manifest.parquet" in out
    assert "without data: ffd run protocols/dfil --studio" in out
    assert "runs:" not in out
    assert cli.main(["list", "protocols", "--json"]) == 0
    states = json.loads(capsys.readouterr().out)
    assert set(states) == set(known_protocols())
    assert states["sur_lid_p2"]["missing"][""][0] == "data/sur_lid/hybrid/manifest.parquet"


def test_wrong_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FFDError, match="no protocol 'dfill'. Did you mean 'dfil'"):
        read_protocol("protocols/dfill")
    with pytest.raises(FFDError, match="no variant 'c50'. Known: c23, c40"):
        read_protocol("ff_types/c50")
    for words, said in (
        (["protocols/dfil"], "cannot run: missing data/faceforensics/manifest.parquet"),
        (["demo", "--studio"], "--studio is for protocols"),
        (["protocols/dfil", "--studio", "--data", "x"], "give one of them"),
    ):
        assert cli.main(["run", *words]) == 2
        assert said in capsys.readouterr().err


def test_a_grid_s_base_may_be_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    methods: dict[str, tuple[str, ...]] = {"plain": ("learner.name=plain",), "iin-9": ("strategy.exemplars=9",)}
    cells, _ = make_cells(Grid("protocols/dfil", True, methods, seeds=(0, 4)), list(methods), (), (), tmp_path)
    assert [cell.name for cell in cells] == ["plain-s0", "iin-9-s0", "plain-s4", "iin-9-s4"]
    configs = [cell.config() for cell in cells]
    assert [config.seed for config in configs] == [0, 0, 4, 4]
    assert [config.learner.name for config in configs] == ["plain", "iin", "plain", "iin"]
    assert configs[1].strategy.config.exemplars == 9
    for config in configs:
        assert config.scenario == config_from(protocol_config("protocols/dfil", studio=True)).scenario
    with pytest.raises(FFDError, match=r"protocols/dfil cannot run: missing data/faceforensics"):
        make_cells(Grid("protocols/dfil", False, methods), list(methods), (), (), tmp_path)
    with pytest.raises(FFDError, match="--studio is for protocols"):
        make_cells(Grid("demo", True, methods), list(methods), (), (), tmp_path)


def _faceforensics(folder: Path, change: Mapping[str, Any] | None = None) -> None:
    """A manifest laid out as FaceForensics++ is: pairs of videos, two compressions, official lists."""
    rows = []
    for quality in ("c23", "c40"):
        for a, b in (("000", "003"), ("010", "011"), ("020", "021")):
            for one, other in ((a, b), (b, a)):
                rows.append({"path": f"{quality}/{one}.png", "forgery": "real", "video": one, "pair": ""})
                for kind in ("deepfakes", "face2face", "faceswap", "neuraltextures", "faceshifter"):
                    video = f"{one}_{other}"
                    pair = f"{quality}/{one}.png"
                    rows.append(
                        {"path": f"{quality}/{kind}/{video}.png", "forgery": kind, "video": video, "pair": pair}
                    )
    table = pd.DataFrame(rows).assign(label=lambda t: (t["forgery"] != "real").astype(int), **(change or {}))
    table["compression"] = table["path"].str[:3]
    (folder / "splits").mkdir(parents=True)
    table.to_parquet(folder / "manifest.parquet")
    for file, listed in (("train", ["000", "003"]), ("val", ["010", "011"]), ("test", ["021", "020"])):
        (folder / "splits" / f"{file}.json").write_text(json.dumps([listed]))


def test_official_splits_and_compression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _faceforensics(tmp_path / "data" / "faceforensics")
    assert missing(read_protocol("ff_types/c40")) == []
    assert "runs: ffd run protocols/ff_types/c40" in described("ff_types")
    config = config_from(protocol_config("protocols/ff_types/c40"))
    assert (config.name, config.scenario.data) == ("ff_types-c40", "data/protocols/ff_types-c40.parquet")
    joined = read_manifest(config.scenario.data)
    assert len(joined) == 6 * 5  # one compression; faceshifter is no part of it
    assert set(joined.table["compression"]) == {"c40"}
    place = dict(zip(joined.table["video"], joined.table["split"], strict=True))
    assert (place["000"], place["003_000"], place["011_010"], place["020"]) == ("train", "train", "valid", "test")
    assert (
        joined.absolute(joined.table["path"][1]).resolve() == tmp_path / "data/faceforensics/c40/deepfakes/000_003.png"
    )
    assert joined.absolute(joined.table["pair"][1]).resolve() == tmp_path / "data/faceforensics/c40/000.png"
    scenario = build_scenario(joined, config.scenario)
    assert len(scenario.experiences) == 4
    (tmp_path / "data/faceforensics/splits/val.json").write_text("[]")
    with pytest.raises(FFDError, match="video '010' is in no split"):
        join_data(read_protocol("ff_types/c40"))


def test_what_a_manifest_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _faceforensics(tmp_path / "data" / "faceforensics", {"forgery": lambda t: t["forgery"].replace("faceswap", "swap")})
    table = pd.read_parquet("data/faceforensics/manifest.parquet").assign(compression="c23")
    table.loc[3, "video"] = ""
    table.to_parquet("data/faceforensics/manifest.parquet")
    (tmp_path / "data/faceforensics/splits/test.json").unlink()
    assert state_of("ff_types")["missing"]["c40"] == [
        "data/faceforensics/splits/test.json",
        "data/faceforensics/manifest.parquet: rows with compression c40",
        "data/faceforensics/manifest.parquet: video in every row",
        "data/faceforensics/manifest.parquet: forgery faceswap",
    ]


def test_own_data_by_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dates = {"late": ["2022", "2021-02"], "early": ["2020-01-05", ""], "middle": ["2021-01", "2023"]}
    rows = [{"path": "r.png", "label": 0, "forgery": "real", "date": "", "dataset": "a"}]
    rows += [
        {"path": f"{n}{i}.png", "label": 1, "forgery": n, "date": d, "dataset": "a"}
        for n, all_of in dates.items()
        for i, d in enumerate(all_of)
    ]
    folder = tmp_path / "data" / "chronological"
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "manifest.parquet")
    assert missing(read_protocol("chronological")) == ["data/chronological/manifest.parquet: date in every row"]
    rows[4]["date"] = "2024"
    pd.DataFrame(rows).to_parquet(folder / "manifest.parquet")
    values = protocol_config("chronological")
    assert values["scenario"]["order"] == ["early", "middle", "late"]
    assert set(read_manifest(values["scenario"]["data"]).table["dataset"]) == {"a"}
    own = protocol_config("chronological", data=str(folder / "manifest.parquet"))
    assert own["scenario"] == {**values["scenario"], "data": str(folder / "manifest.parquet")}


def _tiny(name: str) -> RunConfig:
    """A miniature made smaller still: few people, a network of a few layers, two steps."""
    values = protocol_config(name, studio=True)
    own = values["scenario"].get("people") == "own"
    sets = [
        f"scenario.studio_people={30 * len(values['scenario']['order']) if own else 30}",
        "scenario.size=48",
        "learner.name=plain",
        "learner.trunk={backbone: test_efficientnet, weights: none, frozen_stages: 2}",
        "strategy.name=naive",
        "train={steps: 2, batch: 8, threads: 1, eval_batch: 64, device: cpu}",
        "evaluation={bootstrap: 0, samples: 1, controls: false}",
    ]
    return config_from(apply_sets(values, sets))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cddb/easy", "cddb/hard", "cddb/long", *sorted(set(known_protocols()) - {"cddb"})])
def test_miniatures_run(name: str, tmp_path: Path) -> None:
    from ffd_continual.run import start

    start(_tiny(name), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    variants = read_protocol(name).variants
    way = f"{name}/{variants[0]}" if variants and "/" not in name else name
    assert len(summary["order"]) == SHAPES[way][0]
    assert 0.0 <= summary["auc"]["aa"] <= 1.0
