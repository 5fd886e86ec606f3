"""`ffd serve`: the answers, the history, promotions that are followed, what the command says."""

from __future__ import annotations

import errno
import json
import re
import shutil
import socket
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from ffd_continual.commands import serve as serve_command
from ffd_continual.detecting.inputs import as_input
from ffd_continual.detecting.opened import Opened
from ffd_continual.detecting.predict import Asking, Judging
from ffd_continual.lineage.adopt import adopt
from ffd_continual.lineage.lineage import Lineage, write_promoted
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.pictures import read_picture
from ffd_continual.scenarios.studio.portrait import render_portrait
from ffd_continual.serving.app import PARTS, Limits, create_app
from ffd_continual.serving.detector import InUse
from ffd_continual.serving.history import history
from ffd_continual.serving.judge import EVIDENCE
from ffd_continual.serving.upload import in_words, read_bytes_limit

ROOT = Path(__file__).resolve().parents[2]
HERE = "http" + "://127.0.0.1:8321"
EXTRA = ("crop", "overlay", "trace_kind", "neighbours")


def client_of(path: Path, limits: Limits | None = None) -> TestClient:
    return TestClient(create_app(InUse(path), limits or Limits(frames=4)), base_url=HERE, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(iin_run: Path) -> Iterator[TestClient]:
    with client_of(iin_run) as made:
        yield made


@pytest.fixture(scope="module")
def lineage(iin_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def short(folder: Path) -> None:
        (folder / "report").mkdir()
        (folder / "report" / "report.html").write_text("<p>a report</p>")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffd_continual.lineage.adopt.write_report", short)
        return adopt(iin_run, tmp_path_factory.mktemp("grown") / "lineage").path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of one person; nobody in the last three."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    face = render_portrait(3, 0, 192).image
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=4)
        stream.width = stream.height = 192
        for number in range(12):
            image = face if number < 9 else np.full_like(face, 128)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


def post(client: TestClient, path: Path | bytes, kind: str = "image/png", **asked: Any) -> dict[str, Any]:
    data = path if isinstance(path, bytes) else path.read_bytes()
    answer = client.post("/api/predict", content=data, headers={"Content-Type": kind}, params=asked)
    return {"status": answer.status_code, **answer.json()}


def test_a_picture_gets_the_records_of_ffd_predict(client: TestClient, iin_detector: Opened, portraits: Path) -> None:
    told = post(client, portraits)
    (wanted,) = Judging(iin_detector, Asking()).records([as_input(portraits)])
    assert told["kind"] == "picture"
    assert len(told["records"]) == len(wanted) == 2
    for got, want in zip(told["records"], wanted, strict=True):
        plain = {name: value for name, value in got.items() if name not in EXTRA}
        assert plain == want | {"path": "upload"}
        assert got["crop"].startswith("data:image/jpeg;base64,")
        assert got["overlay"].startswith("data:image/jpeg;base64,")
        assert got["trace_kind"] == "trace"
    assert told["evidence"] == EVIDENCE
    height, width = read_picture(portraits).shape[:2]
    assert (told["height"], told["width"]) == (height, width)


def test_neighbours_come_with_pictures_and_without_places(
    client: TestClient, iin_detector: Opened, portraits: Path
) -> None:
    near = post(client, portraits)["records"][0]["neighbours"]
    assert len(near) == 5
    distances = [one["distance"] for one in near]
    assert distances == sorted(distances)
    assert {one["forgery"] for one in near} <= {"real", *iin_detector.known}
    assert all("/" not in one["path"] for one in near)
    assert all(one["picture"].startswith("data:image/") for one in near)


def test_images_can_be_left_out(client: TestClient, portraits: Path) -> None:
    told = post(client, portraits, images="false")
    assert "preview" not in told
    assert "crop" not in told["records"][0]
    assert "picture" not in told["records"][0]["neighbours"][0]
    assert "data:" not in json.dumps(told)


def test_decisions_come_with_their_thresholds(client: TestClient, iin_detector: Opened, portraits: Path) -> None:
    told = post(client, portraits)
    rule = told["rule"]
    assert rule["forged_from_z"] == iin_detector.rule.forged
    assert rule["real_below_z"] == iin_detector.rule.real
    assert 0 <= rule["real_below_score"] <= rule["forged_from_score"] <= 1
    for record in told["records"]:
        high, low = record["score"] >= rule["forged_from_score"], record["score"] < rule["real_below_score"]
        assert record["decision"] == ("forged" if high else "real" if low else "no decision")


def test_a_picture_without_a_face_says_so_unless_it_is_a_crop(client: TestClient, tiny_faces: Path) -> None:
    blob = tiny_faces.parent / "real" / "p000.png"
    (record,) = post(client, blob)["records"]
    assert record["kind"] == "no face"
    assert "no face" in record["note"]
    assert "score" not in record
    (record,) = post(client, blob, cropped="true")["records"]
    assert record["kind"] == "face"
    assert 0 <= record["score"] <= 1
    assert "no face is found in this crop" in record["note"]


def test_a_video_gets_the_records_of_ffd_predict(client: TestClient, iin_detector: Opened, clip: Path) -> None:
    told = post(client, clip, "video/mp4")
    (wanted,) = Judging(iin_detector, Asking(frames=4)).records([as_input(clip)])
    plain = [{name: value for name, value in got.items() if name not in EXTRA} for got in told["records"]]
    assert plain == [want | {"path": "upload"} for want in wanted]
    *faces, whole = told["records"]
    assert [face["frame"] for face in faces] == [1, 4, 7]
    assert (whole["kind"], whole["frames"]) == ("video", 4)
    assert whole["z"] == pytest.approx(np.mean([face["z"] for face in faces]), abs=1e-6)
    assert told["video_frames"] == 12
    assert [frame["frame"] for frame in told["strip"]] == [1, 4, 7, 10]
    assert [frame["faces"] for frame in told["strip"]] == [1, 1, 1, 0]
    assert [frame["seconds"] for frame in told["strip"]] == [0.25, 1.0, 1.75, 2.5]
    same = post(client, clip, "application/octet-stream", images="false")
    assert same["records"][-1] == whole


def test_what_a_file_is_may_be_left_to_its_content(client: TestClient, portraits: Path) -> None:
    assert post(client, portraits, "application/octet-stream")["kind"] == "picture"


def test_the_page_asks_nobody_but_this_server(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    wanted = set(re.findall(r'(?:src|href)="/([^"]+)"', page.text))
    assert wanted == set(PARTS)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("", *PARTS):
        text = client.get(f"/{name}").text
        assert not re.findall(r"https?://|src=\"//|url\(", text.replace('"http" + "://www.w3.org/2000/svg"', "")), name
        assert not re.findall(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(", text), name


def test_the_detector_is_described(client: TestClient, iin_detector: Opened) -> None:
    told = client.get("/api/detector").json()
    assert told["version"] == iin_detector.version
    assert told["known"] == list(iin_detector.known)
    assert told["lineage"] is False
    assert told["max_upload"] == 50 * 2**20


def test_a_run_shows_its_curves(client: TestClient) -> None:
    told = client.get("/api/lineage").json()
    assert told["lineage"] is False
    assert told["versions"] == []
    learnt = {curve["name"]: curve["learnt"] for curve in told["curves"] if curve["stream"] == "test"}
    assert learnt == {"alpha": 0, "beta": 1}
    assert told["report"] is False
    assert client.get("/api/report").status_code == 404
    assert client.get("/api/versions/1/report").status_code == 404


def test_a_report_is_shown_as_it_is_and_may_do_nothing(iin_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(iin_run, tmp_path / "run"))
    (run / "report").mkdir()
    (run / "report" / "report.html").write_text("<p>ünseen</p>", encoding="utf-8")
    with client_of(run) as client:
        report = client.get("/api/report")
        assert client.get("/api/lineage").json()["report"] is True
    assert report.text == "<p>ünseen</p>"
    policy = report.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "script" not in policy


def second_version(lineage: Lineage, **changed: Any) -> None:
    """Version 2, the first one's copy but for its calibration, so that its scores differ."""
    shutil.copytree(lineage.folder(1), lineage.folder(2))
    about = json.loads((lineage.folder(2) / "version.json").read_text())
    (lineage.folder(2) / "version.json").write_text(json.dumps(about | {"number": 2, "parent": 1, **changed}))
    facts = json.loads((lineage.folder(2) / "detector.json").read_text())
    facts["calibration"]["offset"] += 1.0
    (lineage.folder(2) / "detector.json").write_text(json.dumps(facts))


def test_a_promotion_is_followed_and_a_broken_one_is_not(lineage: Path, portraits: Path, tmp_path: Path) -> None:
    own = Lineage(Path(shutil.copytree(lineage, tmp_path / "lineage")))
    with client_of(own.path) as client:
        first = post(client, portraits)
        assert first["version"].startswith("v1@")
        second_version(own, verdict="promoted", forgery="phone", kind="real")
        assert post(client, portraits)["version"].startswith("v1@"), "only a promotion changes what is in use"
        write_promoted(own, 2)
        second = post(client, portraits)
        assert second["version"].startswith("v2@")
        assert second["problem"] is None
        assert second["records"][0]["score"] > first["records"][0]["score"]
        told = client.get("/api/lineage").json()
        assert (told["promoted"], [one["number"] for one in told["versions"]]) == (2, [1, 2])
        assert [one["promoted"] for one in told["versions"]] == [False, True]
        assert [tick["label"] for tick in told["axis"]] == ["v1", "v2"]
        (alpha,) = (curve for curve in told["curves"] if curve["name"] == "alpha")
        assert [point[0] for point in alpha["points"]] == [1, 2]
        assert alpha["learnt"] == 1
        assert client.get("/api/versions/2/report").text == "<p>a report</p>"
        assert (told["report"], client.get("/api/report").status_code) == (False, 404)
        (own.path / "report.html").write_text("<p>of all</p>")
        assert client.get("/api/report").text == "<p>of all</p>"
        assert told["real_sources"] == ["phone"]
        write_promoted(own, 1)
        assert post(client, portraits)["records"] == first["records"]
        write_promoted(own, 7)
        still = post(client, portraits)
        assert still["records"] == first["records"]
        assert "names version 7, which is not there" in still["problem"]
        write_promoted(own, 2)
        assert post(client, portraits)["problem"] is None


def test_erased_exemplars_are_no_neighbours_any_more(lineage: Path, portraits: Path, tmp_path: Path) -> None:
    own = Lineage(Path(shutil.copytree(lineage, tmp_path / "lineage")))
    with client_of(own.path) as client:
        gone = post(client, portraits)["records"][0]["neighbours"][0]["path"]
        for name in ("exemplars.parquet", "faces.parquet"):  # as `ffd forget` rewrites them
            rows = pd.read_parquet(own.folder(1) / name)
            rows[[not cell.endswith(gone) for cell in rows["path"]]].to_parquet(own.folder(1) / name)
        left = [one["path"] for one in post(client, portraits)["records"][0]["neighbours"]]
        assert left
        assert gone not in left


def test_a_kept_face_that_was_erased_from_an_older_version_is_no_neighbour_any_more(
    lineage: Path, tmp_path: Path
) -> None:
    own = Lineage(Path(shutil.copytree(lineage, tmp_path / "lineage")))
    second_version(own)
    in_use = InUse(own.path)

    def stored() -> set[str]:
        evidence = in_use.current().evidence
        assert evidence is not None
        return {Path(path).name for path in evidence.paths}

    rows = pd.read_parquet(own.folder(1) / "faces.parquet")
    exemplars = {Path(path).name for n in (1, 2) for path in own.table(n, "exemplars.parquet")["path"]}
    gone = next(Path(p).name for p in rows.loc[rows["stream"] == "kept", "path"] if Path(p).name not in exemplars)
    before = stored()
    assert gone in before
    rows[[Path(path).name != gone for path in rows["path"]]].to_parquet(own.folder(1) / "faces.parquet")
    assert stored() == before - {gone}


def test_a_damaged_lineage_is_told_not_thrown(lineage: Path, tmp_path: Path) -> None:
    own = Lineage(Path(shutil.copytree(lineage, tmp_path / "lineage")))
    with client_of(own.path) as client:
        (own.folder(1) / "version.json").write_text("{")
        told = client.get("/api/lineage")
        assert told.status_code == 500
        assert "the lineage is damaged" in told.json()["error"]
        assert client.get("/").status_code == 200


def test_history_of_a_pruned_version(lineage: Path, tmp_path: Path) -> None:
    own = Lineage(Path(shutil.copytree(lineage, tmp_path / "lineage")))
    second_version(own)
    shutil.rmtree(own.folder(2) / "checkpoints")
    shutil.rmtree(own.folder(2) / "report")
    (_, second) = history(own.path)["versions"]
    assert (second["weights"], second["report"], second["promoted"]) == (False, False, False)


def given(**changed: Any) -> Namespace:
    known = {"detector": Path("nowhere"), "port": 0, "host": "127.0.0.1", "yes_expose": False, "allow_host": [],
             "max_upload": "50MB", "no_neighbours": False, "fpr": None, "band": None, "device": None,
             "threads": None}  # fmt: skip
    return Namespace(**(known | changed))


def test_a_port_in_use_is_told_before_anything_is_read() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FFDError, match=rf"port {port} of 127.0.0.1 is in use.*--port {port + 1}"):
            serve_command.run(given(port=port))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7"])
def test_other_machines_are_let_in_only_when_asked_for(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[Any] = []
    monkeypatch.setattr(socket.socket, "bind", lambda _, place: bound.append(place))
    monkeypatch.setattr(socket.socket, "listen", lambda *_: None)  # nothing is opened to the network here
    with pytest.raises(FFDError, match=r"can be reached by other machines.*--yes-expose"):
        serve_command.listen(host, 0, exposed=False)
    assert bound == []
    serve_command.listen(host, 0, exposed=True).close()
    assert bound == [(host, 0)]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.9"])
def test_loopback_needs_no_leave(host: str) -> None:
    with serve_command.listen(host, 0, exposed=False) as made:
        assert made.getsockname()[1] > 0


def test_what_is_wrong_with_the_options_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FFDError, match="not known here"):
        serve_command.listen("no.such.host.invalid", 0, exposed=False)
    with pytest.raises(FFDError, match="0 to 65535"):
        serve_command.listen("127.0.0.1", 70000, exposed=False)
    with pytest.raises(FFDError, match="give a size from 1KB to 4GB"):
        serve_command.run(given(max_upload="fifty"))
    refused = OSError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(socket.socket, "bind", lambda *_: (_ for _ in ()).throw(refused))
    with pytest.raises(FFDError, match="kept for the system"):
        serve_command.listen("127.0.0.1", 80, exposed=False)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_command, "NEEDED", ("fastapi", "no_such_package"))
    with pytest.raises(FFDError, match=r"needs no_such_package: pip install 'ffd-continual\[serve\]'"):
        serve_command.run(given())


def test_sizes() -> None:
    sizes = {"50MB": 50 * 2**20, "50m": 50 * 2**20, "1.5 GB": 3 * 2**29, "2048": 2048, "64KB": 2**16}
    assert {text: read_bytes_limit(text) for text in sizes} == sizes
    for wrong in ("", "0", "1", "-5MB", "5TB", "1e9", "9GB", "MB", "50 MB MB"):
        with pytest.raises(FFDError):
            read_bytes_limit(wrong)
    assert (in_words(50 * 2**20), in_words(2048)) == ("50 MB", "2 KB")


def test_documentation_names_what_there_is(client: TestClient, portraits: Path) -> None:
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    told = post(client, portraits)
    for name in (*told, *told["rule"], *told["records"][0], *client.get("/api/detector").json()):
        assert name == "status" or f"`{name}`" in text, name
    for name in client.get("/api/lineage").json():
        assert f"`{name}`" in text, name
