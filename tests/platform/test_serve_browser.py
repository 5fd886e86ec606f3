"""The page in a real browser: Chromium without a window, driven over the DevTools protocol by a plain socket."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ffd_continual.detecting.opened import Opened
from ffd_continual.scenarios.pictures import read_picture

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), "")
ROOM = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


class Socket:
    """As much of RFC 6455 as the protocol needs: text frames out, whole messages in."""

    def __init__(self, port: int, path: str):
        self.link = socket.create_connection(("127.0.0.1", port), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        asked = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.link.sendall(f"{asked}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        told = b""
        while not told.endswith(b"\r\n\r\n"):
            told += self._take(1)
        assert b" 101 " in told.split(b"\r\n")[0], told

    def _take(self, size: int) -> bytes:
        made = b""
        while len(made) < size:
            got = self.link.recv(size - len(made))
            assert got, "the browser hung up"
            made += got
        return made

    def send(self, text: str) -> None:
        data, mask = text.encode(), os.urandom(4)
        size = len(data)
        head = b"\x81" + (struct.pack("!B", 128 | size) if size < 126 else struct.pack("!BH", 254, size))
        if size >= 2**16:
            head = b"\x81" + struct.pack("!BQ", 255, size)
        self.link.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def receive(self) -> str:
        made, final = b"", False
        while not final:
            first, second = self._take(2)
            final, size = bool(first & 128), second & 127
            if size > 125:
                size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
            data = self._take(size)
            made += data if first & 15 in (0, 1) else b""
        return made.decode()


class Page:
    """One tab of the browser."""

    def __init__(self, port: int, path: str):
        self.socket, self.number = Socket(port, path), 0
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **given: Any) -> dict[str, Any]:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": given}))
        while True:
            told = json.loads(self.socket.receive())
            if told.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(told["params"]))
            if told.get("id") == self.number:
                assert "error" not in told, told
                return dict(told["result"])

    def value(self, script: str) -> Any:
        told = self.do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self.value(f"!!({script})"):
            assert time.monotonic() < end, (
                f"{script} never held; the page says: {self.value('document.body.innerText')}"
            )
            time.sleep(0.1)

    def choose(self, path: Path) -> None:
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.do("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def size(self, width: int, height: int) -> None:
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def shoot(self, path: Path, whole: bool = True) -> bytes:
        data = base64.b64decode(self.do("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])
        path.write_bytes(data)
        return data


def start_browser(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Chromium with a profile of its own, and the port of its DevTools."""
    flags = ["--headless=new", "--disable-gpu", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={folder}"]  # fmt: skip
    process = subprocess.Popen([BROWSER, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    told, end = folder / "DevToolsActivePort", time.monotonic() + 60
    while not (told.is_file() and told.read_text().count("\n")):
        assert process.poll() is None, "the browser did not start"
        assert time.monotonic() < end, "the browser does not listen"
        time.sleep(0.1)
    return process, int(told.read_text().split("\n")[0])


def open_page(port: int, address: str) -> Page:
    """The browser's first tab, led to the address."""
    with urlopen("http" + f"://127.0.0.1:{port}/json/list", timeout=30) as told:
        tab = next(one for one in json.load(told) if one["type"] == "page")
    page = Page(port, "/" + tab["webSocketDebuggerUrl"].split("/", 3)[3])
    page.do("Page.navigate", url=address)
    page.wait("document.readyState === 'complete' && document.getElementById('name').textContent !== ''")
    return page


@pytest.fixture
def served(iin_run: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`ffd serve` as a user starts it, and its address."""
    command = [sys.executable, "-P", "-m", "ffd_continual.cli", "serve", str(iin_run), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ROOM)
    assert process.stdout is not None
    told = process.stdout.readline()
    found = re.search(r"http" + r"://127\.0\.0\.1:\d+/", told)
    assert found, f"{told}{process.communicate()[1]}"
    yield process, found.group(0)
    process.kill()
    process.communicate()


@pytest.fixture
def page(served: tuple[subprocess.Popen[str], str], tmp_path: Path) -> Iterator[Page]:
    process, port = start_browser(tmp_path / "profile")
    yield open_page(port, served[1])
    process.kill()
    process.wait()


def picture_of(page: Page, path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(page.shoot(path))).convert("RGB"))


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
def test_a_person_drops_a_face_a_video_and_something_else(
    page: Page, portraits: Path, iin_detector: Opened, tmp_path: Path
) -> None:
    assert "A score is evidence, not proof" in page.value("document.body.innerText")
    empty = picture_of(page, tmp_path / "empty.png")

    page.choose(portraits)
    page.wait("document.querySelectorAll('.card').length === 2")
    verdict = iin_detector.look(read_picture(portraits))[0]
    text = page.value("document.querySelector('.card').innerText")
    word = {"forged": "Forged", "real": "Real", "no decision": "No decision"}[verdict.decision]
    assert text.split("\n")[0] == word
    assert f"score {verdict.score:.2f}" in text
    assert "What it resembles of what is known" in text or "Were it forged" in text
    assert "alpha" in text
    assert "beta" in text
    assert f"{verdict.novelty:.2f}" in text
    page.wait("[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    assert page.value("document.querySelectorAll('.card .near img').length") == 10
    box = page.value("(() => { const b = document.querySelector('.box').getBoundingClientRect();"
                     "const p = document.querySelector('.photo img').getBoundingClientRect();"
                     "return [(b.x - p.x) / p.width, b.width / p.width]; })()")  # fmt: skip
    assert verdict.box is not None
    assert box == pytest.approx([verdict.box[0] / 640, verdict.box[2] / 640], abs=0.01)
    judged = picture_of(page, tmp_path / "judged.png")
    assert judged.shape[0] > empty.shape[0]
    assert judged.std() > empty.std(), "the screenshot shows no picture"

    clip = tmp_path / "clip.mp4"
    image = read_picture(portraits)
    with av.open(str(clip), "w") as file:
        stream = file.add_stream("mpeg4", rate=4)
        stream.width, stream.height = image.shape[1], image.shape[0]
        for packet in (p for _ in range(6) for p in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))):
            file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    page.choose(clip)
    page.wait("document.querySelectorAll('.strip button').length === 6")
    page.value("document.querySelectorAll('.strip button')[2].click()")
    assert page.value("document.querySelectorAll('.card').length") == 3

    page.choose(Path(__file__))
    page.wait("document.querySelector('#verdict [role=alert]')")
    assert "cannot be used" in page.value("document.querySelector('#verdict').innerText")
    page.choose(portraits)
    page.wait("document.querySelectorAll('.card').length === 2")

    page.value("document.getElementById('tab-history').click()")
    page.wait("document.querySelectorAll('#history svg').length === 3")
    assert "Forgetting curves" in page.value("document.querySelector('#history').innerText")
    page.size(400, 800)
    for tab in ("judge", "history"):
        page.value(f"document.getElementById('tab-{tab}').click()")
        assert page.value("document.documentElement.scrollWidth") <= 400, f"{tab} is wider than a telephone"
    refused = [told for told in page.complaints if "422" not in told]
    assert not refused, refused


UNEVEN = {
    "lineage": True, "name": "grown", "promoted": 3, "versions": [], "real_sources": [], "report": False,
    "axis": [{"x": 1, "label": "v1", "time": 1.6e9}, {"x": 2, "label": "v2", "time": 1.601e9},
             {"x": 3, "label": "v3", "time": 1.7e9}],
    "curves": [{"name": "alpha", "stream": "test", "learnt": 1,
                "points": [[1, 0.9, 0.8, 0.95], [2, 0.8, 0.7, 0.9], [3, 0.7, 0.6, 0.8]]},
               {"name": "few", "stream": "test", "learnt": 3, "points": [[3, None, None, None]]}],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
def test_curves_over_versions_and_over_calendar_time(page: Page) -> None:
    page.value(f"window.ask = async () => ({json.dumps(UNEVEN)})")
    page.value("document.getElementById('tab-history').click()")
    page.wait("document.querySelectorAll('#history svg').length === 2")
    circles = "document.querySelector('#history svg').querySelectorAll('circle')"
    places = f"[...{circles}].map((one) => +one.getAttribute('cx'))"
    pressed = "document.querySelector('.choice [aria-pressed=true]').textContent"
    first, second, third = page.value(places)
    assert (page.value(pressed), (second - first) / (third - first)) == ("versions", pytest.approx(0.5))
    page.value("document.querySelectorAll('.choice button')[1].click()")
    first, second, third = page.value(places)
    assert (page.value(pressed), (second - first) / (third - first)) == ("calendar time", pytest.approx(0.01))
    text = page.value("document.getElementById('history').innerText")
    assert "Sept 2020" in text.replace("Sep 2020", "Sept 2020")
    assert "Nov 2023" in text
    assert "learnt at 0.90, now 0.70: lost 0.20" in text
    assert "not measured" in text
    page.size(400, 800)
    assert page.value("document.documentElement.scrollWidth") <= 400
    assert not page.complaints


@pytest.mark.slow
def test_ctrl_c_ends_it_cleanly_while_somebody_uploads(served: tuple[subprocess.Popen[str], str]) -> None:
    process, address = served
    port = int(address.strip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as slow:
        head = f"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: image/png\r\n"
        slow.sendall(f"{head}Content-Length: 9999\r\n\r\nabc".encode())
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "stopped." in told
    assert "Traceback" not in told
