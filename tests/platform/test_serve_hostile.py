"""`ffd serve` under hostile uploads, strangers, slow and vanishing clients, and many at once."""

from __future__ import annotations

import asyncio
import functools
import gzip
import io
import json
import os
import socket
import struct
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import av
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from ffd_continual.commands.serve import listen
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.studio.portrait import render_portrait
from ffd_continual.serving.app import Limits, create_app
from ffd_continual.serving.detector import InUse
from ffd_continual.serving.guard import Hosts
from ffd_continual.serving.patience import CONNECTIONS, Patience, settings
from ffd_continual.serving.upload import PICTURE, VIDEO, Upload, UploadError, receive
from ffd_continual.serving.video import Stopped, reel

HERE = "http" + "://127.0.0.1:8321"
LIMIT = 4 * 2**20


@pytest.fixture(scope="module")
def use(iin_run: Path) -> InUse:
    return InUse(iin_run)


@pytest.fixture(scope="module")
def client(use: InUse) -> Iterator[TestClient]:
    app = create_app(use, Limits(upload=LIMIT, frames=2, video_seconds=20))
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as made:
        yield made


@contextmanager
def running(app: FastAPI, patience: Patience | None = None) -> Iterator[str]:
    """A real server on a port of its own, served as the command does; its address."""
    with listen("127.0.0.1", 0, exposed=False) as made:
        server = uvicorn.Server(settings(app, patience))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [made]}, daemon=True)
        thread.start()
        yield "http" + f"://127.0.0.1:{made.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def live(use: InUse) -> Iterator[str]:
    with running(create_app(use, Limits(upload=LIMIT, frames=2, upload_seconds=2.5))) as address:
        yield address


def png(width: int, height: int) -> bytes:
    """A PNG of zeros, one bit a pixel: a few kilobytes for any size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + name + data + struct.pack("!I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packer.flush()
    head = struct.pack("!IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@functools.cache
def jpeg(seed: int = 3, side: int = 160) -> bytes:
    made = io.BytesIO()
    Image.fromarray(render_portrait(seed, 0, side).image).save(made, "JPEG", quality=92)
    return made.getvalue()


def video(width: int = 96, height: int = 96, frames: int = 8, codec: str = "mpeg4", pixels: str = "yuv420p") -> bytes:
    made = io.BytesIO()
    with av.open(made, "w", format="mp4") as file:
        stream = file.add_stream(codec, rate=4)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for number in range(frames):
            image = np.full((height, width, 3), 20 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return made.getvalue()


def zipped() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../face.jpg", bytes(10**6))
    return made.getvalue()


def post(client: TestClient, data: bytes, kind: str) -> tuple[int, dict[str, Any]]:
    answer = client.post("/api/predict", content=data, headers={"Content-Type": kind})
    return answer.status_code, answer.json()


@pytest.mark.parametrize(
    ("data", "kind", "status", "words"),
    [
        (lambda: b"", "image/jpeg", 400, "empty"),
        (lambda: b"", "video/mp4", 400, "empty"),
        (lambda: jpeg()[:700], "image/jpeg", 422, "cannot be read"),
        (lambda: jpeg()[:-2000], "image/jpeg", 422, "truncated or damaged"),
        (lambda: bytes(5000), "image/jpeg", 422, "no JPEG, PNG"),
        (lambda: np.random.default_rng(0).bytes(9000), "image/png", 422, "no JPEG, PNG"),
        (lambda: b"\xff\xd8\xff" + np.random.default_rng(1).bytes(9000), "image/jpeg", 422, "cannot be read"),
        (lambda: b"\x89PNG\r\n\x1a\n", "image/png", 422, "cannot be read"),
        (lambda: b"<svg xmlns='a'><image href='file:///etc/passwd'/></svg>", "image/svg+xml", 422, "no JPEG, PNG"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/x-eps", 422, "no JPEG, PNG"),
        (lambda: gzip.compress(jpeg()), "image/jpeg", 422, "no JPEG, PNG"),
        (lambda: zipped(), "application/octet-stream", 422, "video cannot be used"),
        (lambda: png(30000, 30000), "image/png", 422, "megapixels"),
        (lambda: png(10001, 10000), "image/png", 422, "megapixels"),
        (lambda: png(10000, 10000), "image/png", 422, "megapixels"),
        (lambda: png(60000, 1), "image/png", 422, "too long and narrow"),
        (lambda: png(1, 60000), "image/png", 422, "too long and narrow"),
        (lambda: jpeg(), "video/mp4", 422, "video cannot be used"),
        (lambda: b"not a video", "video/mp4", 422, "video cannot be used"),
        (lambda: video()[:600], "video/mp4", 422, "video cannot be used"),
        (lambda: b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n", "video/mp4", 422, "video cannot be used"),
        (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", "application/octet-stream", 422, "video cannot be used"),
        (lambda: jpeg(), "text/html", 415, "not text/html"),
        (lambda: jpeg(), "", 415, "a body of no Content-Type"),
        (lambda: jpeg(), "<script>alert(1)</script>", 415, "not that"),
        (lambda: b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x", 415, "--data-binary"),
        (lambda: jpeg() + bytes(LIMIT), "image/jpeg", 413, "larger than the 4 MB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # bytes would be spelt out, megabytes of them
)  # fmt: skip
def test_what_cannot_be_judged_is_answered_in_words(
    client: TestClient, data: Callable[[], bytes], kind: str, status: int, words: str
) -> None:
    begun = time.monotonic()
    got, told = post(client, data(), kind)
    assert (got, told["status"]) == (status, status)
    assert words in told["error"]
    assert "/proc" not in told["error"]
    assert "etc" not in told["error"]
    assert time.monotonic() - begun < 20
    assert client.get("/api/detector").status_code == 200


def test_odd_but_whole_files_are_judged_as_they_are(client: TestClient) -> None:
    whole = Image.fromarray(render_portrait(3, 0, 160).image)
    clear = whole.convert("RGBA")
    kinds = {"GIF": whole.convert("P"), "TIFF": whole, "BMP": whole, "WEBP": clear, "PNG": whole.convert("L")}
    for name, picture in kinds.items():
        made = io.BytesIO()
        picture.save(made, name)
        status, told = post(client, made.getvalue() + b"trailing bytes", "application/octet-stream")
        assert (status, told["kind"]) == (200, "picture"), name
        assert [record["kind"] for record in told["records"]] == ["face"], name
    tiny = io.BytesIO()
    Image.new("RGB", (1, 1)).save(tiny, "PNG")
    assert post(client, tiny.getvalue(), "image/png")[1]["records"][0]["kind"] == "no face"


def test_a_video_without_faces_and_a_cut_one(client: TestClient) -> None:
    status, told = post(client, video(), "video/mp4")
    assert (status, told["records"][0]["kind"], told["video_frames"]) == (200, "video", 8)
    assert "no face was found" in told["records"][0]["note"]
    assert "score" not in told["records"][0]
    assert len(told["strip"]) == 2
    wide = video(10016, 16, 1, "mjpeg", "yuvj420p")
    status, told = post(client, wide, "video/mp4")
    assert (status, "too large" in told["error"]) == (422, True)


async def chunks(count: int, taken: list[int], size: int = 1000, wait: float = 0) -> AsyncIterator[bytes]:
    for number in range(count):
        taken.append(number)
        await asyncio.sleep(wait)
        yield bytes(size)


def test_the_limit_holds_while_bytes_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    taken: list[int] = []
    with pytest.raises(UploadError) as refused:
        asyncio.run(receive(chunks(10**6, taken), 5000, 60, PICTURE))
    assert refused.value.status == 413
    assert len(taken) == 6, "reading went on behind the limit"
    upload = asyncio.run(receive(chunks(5, taken), 5000, 60, PICTURE))
    assert upload.size == len(upload.data()) == 5000
    assert list(tmp_path.iterdir()) == [], "the upload has a name"
    upload.close()
    with pytest.raises(UploadError) as late:
        asyncio.run(receive(chunks(50, [], wait=0.05), 10**6, 0.2, PICTURE))
    assert late.value.status == 408


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(UploadError) as refused:
        asyncio.run(receive(chunks(2, []), 5000, 60, None))
    assert refused.value.status == 507


def upload_of(data: bytes) -> Upload:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(data)
    return Upload(file, len(data), VIDEO)


def test_time_for_a_video_ends_and_so_does_its_process() -> None:
    upload = upload_of(video())
    begun = time.monotonic()
    with reel(upload, 2, 0.01, threading.Event()) as film:
        assert list(film.frames()) == []
        assert film.late
        process = film.process
    assert process.poll() is not None
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped), reel(upload, 2, 60, stop) as film:
        list(film.frames())
    assert film.process.poll() is not None
    assert time.monotonic() - begun < 5
    upload.close()


def test_a_video_that_takes_too_long_is_told(use: InUse) -> None:
    with TestClient(create_app(use, Limits(video_seconds=0.01)), base_url=HERE) as client:
        status, told = post(client, video(), "video/mp4")
        assert (status, "could be read within" in told["error"]) == (422, True)
        assert post(client, jpeg(), "image/jpeg")[0] == 200


def test_a_decoder_that_dies_takes_nobody_along(monkeypatch: pytest.MonkeyPatch, client: TestClient) -> None:
    monkeypatch.setattr("ffd_continual.serving.video.WORKER", "ffd_continual.no_such_module")
    status, told = post(client, video(), "video/mp4")
    assert (status, "breaks the decoder" in told["error"]) == (422, True)


def test_the_reading_process_is_confined(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "from ffd_continual.serving.frames import confine\nconfine()\n"
        "try:\n    bytearray(4 * 2**30)\nexcept MemoryError:\n    print('memory')\n"
        f"try:\n    open({str(tmp_path / 'x')!r}, 'wb', 0).write(b'1')\n"
        "except OSError as error:\n    print(error.errno)\n"
    )
    ignore = "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    ran = subprocess.run([sys.executable, "-P", "-c", ignore + script], capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["memory", "27"], ran.stderr


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8321", "127.0.0.1.evil.example", "", "[::1", "a b",
                                  "127.0.0.1@evil.example", "10.0.0.7"])  # fmt: skip
def test_other_names_are_not_answered_to(client: TestClient, host: str) -> None:
    for address in ("/", "/api/lineage", "/api/report"):
        answer = client.get(address, headers={"Host": host})
        assert answer.status_code == 421
        assert "does not answer to that name" in answer.json()["error"]


@pytest.mark.parametrize("host", ["127.0.0.1:8321", "localhost:9999", "LOCALHOST", "[::1]:8321", "localhost."])
def test_own_names_are(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_exposed_servers_answer_to_addresses_and_names_that_were_given() -> None:
    hosts = Hosts(frozenset({"box.local"}), addresses=True)
    assert [hosts.knows(name) for name in ("10.0.0.7:8321", "[fe80::1]:1", "Box.local", "evil.example")] == [
        True, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http" + "://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
     {"Origin": "http" + "://127.0.0.1:9999"}],
)  # fmt: skip
def test_other_pages_may_not_send(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.post("/api/predict", content=jpeg(), headers={"Content-Type": "image/jpeg", **headers})
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]
    asked = client.options("/api/predict", headers={"Access-Control-Request-Method": "POST", **headers})
    assert asked.status_code in (403, 405)
    assert not [name for name in asked.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "address",
    ["/api/versions/..%2f..%2fetc%2fpasswd/report", "/api/versions/1/../../../config.yaml", "/..%2fsetup.cfg",
     "/serve_app.py", "/%2e%2e/%2e%2e/etc/passwd", "/api/versions/-1/report", "/api/versions/1e3/report",
     "/api/versions/99999999999999999999/report", "/api/versions/%00/report", "/lineage.json", "/openapi.json", "/docs",
     "//etc/passwd"],
)  # fmt: skip
def test_no_address_leads_to_a_file(client: TestClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code in (400, 404)
    assert set(answer.json()) == {"error", "status"}


def test_names_that_a_client_gives_are_no_paths(client: TestClient, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (64, 64)).save(secret)
    answer = client.post(
        f"/api/predict?path={secret}&file={secret}", content=jpeg(),
        headers={"Content-Type": "image/jpeg", "Content-Disposition": f'attachment; filename="{secret}"'},
    )  # fmt: skip
    assert answer.json()["records"][0]["path"] == "upload"
    assert answer.json()["width"] == 160


def ask(live: str, data: bytes, kind: str = "image/jpeg", address: str = "/api/predict?images=false") -> Any:
    asked = Request(live + address, data=data, headers={"Content-Type": kind})
    try:
        with urlopen(asked, timeout=60) as told:
            return json.load(told)
    except HTTPError as error:
        return json.load(error)


def test_many_at_once_are_answered_as_one_after_another(live: str) -> None:
    faces = [jpeg(seed) for seed in range(4)]
    alone = [ask(live, face) for face in faces]
    assert len({told["records"][0]["z"] for told in alone}) == 4
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda face: ask(live, face), faces * 2))
    assert together == alone * 2


def raw(live: str, sent: bytes) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", int(live.rpartition(":")[2])), timeout=30)
    made.sendall(sent)
    return made


def head(live: str, length: str, kind: str = "image/jpeg") -> bytes:
    host = live.partition("//")[2]
    return f"POST /api/predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\n{length}\r\n\r\n".encode()


def test_slow_and_vanishing_clients_hold_nobody_up(live: str, use: InUse) -> None:
    slow = [raw(live, head(live, "Content-Length: 100000") + b"\xff\xd8") for _ in range(8)]
    gone = raw(live, head(live, "Content-Length: 100000") + bytes(5000))
    gone.close()
    left = raw(live, head(live, f"Content-Length: {len(jpeg())}") + jpeg())  # does not wait for its answer
    left.close()
    half = raw(live, b"POST /api/pre")
    assert ask(live, jpeg())["records"][0]["kind"] == "face"
    for one in slow:
        assert b" 408 " in one.recv(4096)
        one.close()
    half.close()


def last_words(one: socket.socket) -> bytes:
    """All that the server says before it hangs up; bytes that it has not read yet make a reset of that."""
    told = b""
    with suppress(ConnectionResetError):
        while got := one.recv(4096):
            told += got
    return told


def test_half_sent_heads_and_bodies_end_in_time(use: InUse) -> None:
    limits, patience = Limits(upload=LIMIT, upload_seconds=60), Patience(head=3.0, body=4.0, left=0.5)
    with running(create_app(use, limits), patience) as live:
        name = live.partition("//")[2]
        begun = time.monotonic()
        half = raw(live, b"POST /api/predict HTTP/1.1\r\nHost: ")
        silent = raw(live, b"")
        body = raw(live, head(live, "Content-Length: 100000") + b"\xff\xd8")
        unasked = raw(live, f"GET /page.css HTTP/1.1\r\nHost: {name}\r\nContent-Length: 99999\r\n\r\nx".encode())
        busy = raw(live, f"GET /page.css HTTP/1.1\r\nHost: {name}\r\n\r\nGET /".encode())
        with urlopen(f"{live}/api/detector", timeout=30) as told:
            assert told.status == 200
        for one in (half, silent, body):
            one.setblocking(False)
            with pytest.raises(BlockingIOError):  # they still wait, and nobody waited for them
                one.recv(1)
            one.settimeout(30)
        for _ in range(3):  # a byte now and then prolongs nothing
            time.sleep(0.2)
            half.sendall(b"a")
            with suppress(OSError):  # hung up on already
                unasked.sendall(b"x")
        assert last_words(half).split(b"\r\n")[0] == b"HTTP/1.1 408 Request Timeout"
        assert last_words(silent) == b""
        with suppress(OSError):  # what was sent after the answer resets the connection
            assert b" 200 " in last_words(unasked)
        both = last_words(busy)
        assert (b" 200 " in both, b"did not come whole within 3 seconds" in both) == (True, True)
        assert 2.9 < time.monotonic() - begun < 25
        assert last_words(body) == b""
        assert 3.9 < time.monotonic() - begun < 25
        for one in (half, silent, body, unasked, busy):
            one.close()
        assert ask(live, jpeg())["records"][0]["kind"] == "face"


def test_silent_connections_make_room(use: InUse) -> None:
    with running(create_app(use, Limits(upload=LIMIT))) as live:
        crowd = [raw(live, b"GET") for _ in range(CONNECTIONS + 20)]
        assert ask(live, jpeg())["records"][0]["kind"] == "face"
        assert last_words(crowd[0]) == b""
        crowd[-1].sendall(f" / HTTP/1.1\r\nHost: {live.partition('//')[2]}\r\nConnection: close\r\n\r\n".encode())
        assert b" 200 " in last_words(crowd[-1])
        for one in crowd:
            one.close()


def test_nobody_waits_for_the_work_of_one_who_went_away(use: InUse, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, end = threading.Event(), threading.Event()

    def endless(*_: Any) -> dict[str, Any]:
        begun.set()
        end.wait(30)
        return {"kind": "picture", "records": []}

    with running(create_app(use, Limits(waiting=1))) as live:
        with monkeypatch.context() as patch:
            patch.setattr("ffd_continual.serving.app.judge_picture", endless)
            gone = raw(live, head(live, f"Content-Length: {len(jpeg())}") + jpeg())
            assert begun.wait(10)
            assert ask(live, jpeg())["status"] == 503
            gone.close()
        told: dict[str, Any] = {"status": 503}
        for _ in range(50):
            told = ask(live, jpeg()) if told.get("status") == 503 else told
            time.sleep(0.05)
        end.set()
    assert told["kind"] == "picture"


def test_too_much_is_refused_before_it_is_sent(live: str) -> None:
    announced = raw(live, head(live, f"Content-Length: {LIMIT + 1}\r\nExpect: 100-continue"))
    assert b" 413 " in announced.recv(4096).split(b"\r\n")[0]
    announced.close()
    chunked = raw(live, head(live, "Transfer-Encoding: chunked"))
    piece = b"10000\r\n" + bytes(65536) + b"\r\n"
    told = b""
    try:
        for _ in range(LIMIT // 65536 + 200):
            chunked.sendall(piece)
    except OSError:
        pass  # hung up on, as it should be
    chunked.settimeout(10)
    try:
        told = chunked.recv(4096)
    except OSError:
        told = b""
    chunked.close()
    assert told == b"" or b" 413 " in told
    assert ask(live, jpeg())["kind"] == "picture"
    for wrong in ("Content-Length: -1", "Content-Length: x", "Content-Length: 1\r\nContent-Length: 2"):
        odd = raw(live, head(live, wrong))
        assert b" 400 " in odd.recv(4096).split(b"\r\n")[0]
        odd.close()


def test_a_crowd_is_asked_to_come_again(use: InUse) -> None:
    with TestClient(create_app(use, Limits(waiting=0)), base_url=HERE) as client:
        status, told = post(client, jpeg(), "image/jpeg")
    assert (status, "Try again" in told["error"]) == (503, True)


def test_faults_are_told_without_their_insides(use: InUse, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a secret")

    app = create_app(use)
    monkeypatch.setattr("ffd_continual.serving.app.judge_picture", broken)
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        status, told = post(client, jpeg(), "image/jpeg")
        assert (status, "secret" in json.dumps(told)) == (500, False)
        monkeypatch.setattr(
            "ffd_continual.serving.app.judge_picture", lambda *_: (_ for _ in ()).throw(FFDError("why"))
        )
        assert post(client, jpeg(), "image/jpeg")[1]["error"] == "why"


def test_nothing_is_left_behind(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    for data, kind in ((jpeg(), "image/jpeg"), (bytes(99), "image/jpeg"), (video(), "video/mp4"), (b"x", "video/mp4")):
        post(client, data, kind)
    assert list(tmp_path.iterdir()) == []
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 1
