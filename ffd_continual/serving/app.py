"""The page and its JSON API (docs/serve.md) as an ASGI application; nothing here opens a path that a client sent.

Uploads come in on the event loop, many at a time and as slowly as they like; they are judged by `WORKERS` threads, in
the order in which they were complete. A client that went away is noticed, and its work is left.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.serving.detector import InUse
from ffd_continual.serving.guard import REPORT_POLICY, Guard, Hosts, refusal
from ffd_continual.serving.history import history, read_report, real_sources
from ffd_continual.serving.judge import EVIDENCE, Record, finite, judge_picture, rule_of
from ffd_continual.serving.upload import PICTURE, Upload, UploadError, check_length, receive, told_kind
from ffd_continual.serving.video import Stopped, judge_video

WORKERS = 2
TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
PARTS = ("page.css", "page.js", "page_faces.js", "page_history.js")
GONE = 0.3  # seconds between two looks whether a client is still there


@dataclass(frozen=True)
class Limits:
    """What one client may ask for."""

    upload: int = 50 * 2**20  # bytes
    upload_seconds: float = 120.0
    waiting: int = 32  # uploads under way or waiting, together
    frames: int = 32  # of a video, judged; as many as ffd predict takes
    video_seconds: float = 60.0  # spent on one


@dataclass
class Desk:
    """What requests share: the detector, the threads that judge, and how many uploads are under way."""

    use: InUse
    limits: Limits
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(WORKERS, "ffd-judge"))
    closing: threading.Event = field(default_factory=threading.Event)
    busy: int = 0  # read and written on the event loop only

    async def judge(self, request: Request, upload: Upload, cropped: bool, images: bool) -> Record:
        """The answer, from a thread; ClientDisconnect where nobody waits for it any more. The upload is gone then."""
        stop = threading.Event()
        try:
            own = self.pool.submit(_judge, self, upload, cropped, images, stop)
        except RuntimeError as error:  # the server ends
            upload.close()
            raise ClientDisconnect from error
        future = asyncio.wrap_future(own)
        try:
            while not (await asyncio.wait({future}, timeout=GONE))[0]:
                if self.closing.is_set() or await request.is_disconnected():
                    raise ClientDisconnect
            return future.result()
        finally:
            stop.set()
            if own.cancel():  # it was still waiting for its turn
                upload.close()
            future.cancel()


def create_app(use: InUse, limits: Limits | None = None, hosts: Hosts | None = None) -> FastAPI:
    """The application; `hosts` are the names it answers to (default: the loopback's)."""
    desk = Desk(use, limits or Limits())

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.closing.set()
        desk.pool.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(title="ffd serve", docs_url=None, redoc_url=None, openapi_url=None, lifespan=living)
    app.add_middleware(Guard, hosts=hosts or Hosts())
    _errors(app)
    _pages(app)
    _api(app, desk)
    return app


def _errors(app: FastAPI) -> None:
    @app.exception_handler(UploadError)
    async def refused(_: Request, error: UploadError) -> Response:
        return refusal(error.status, error.text)

    @app.exception_handler(FFDError)
    async def failed(_: Request, error: FFDError) -> Response:
        return refusal(500, str(error))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        known = "Known: /api/predict (POST), /api/detector, /api/lineage, /api/versions/{number}/report."
        text = f"there is nothing at that address. {known}" if error.status_code == 404 else str(error.detail)
        return refusal(error.status_code, text, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return refusal(400, f"{first['loc'][-1]}: {first['msg']}.")

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        return refusal(499, "the client went away.")

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:
        return refusal(500, "a fault of the server's own: its terminal tells more.")


def _pages(app: FastAPI) -> None:
    def asset(name: str) -> Response:
        kind = name.rpartition(".")[2]
        return Response(files("ffd_continual.serving").joinpath(name).read_bytes(), media_type=TYPES[kind])

    @app.get("/")
    def page() -> Response:
        return asset("page.html")

    @app.get("/{name}")
    def part(name: str) -> Response:
        if name not in PARTS:
            raise HTTPException(404)
        return asset(name)


def _api(app: FastAPI, desk: Desk) -> None:
    limits = desk.limits

    @app.get("/api/detector")
    def detector() -> Response:
        return JSONResponse(finite(describe(desk.use, limits)))

    @app.get("/api/lineage")
    def lineage() -> Response:
        return JSONResponse(finite(history(desk.use.path)))

    @app.get("/api/report")
    def report() -> Response:
        return _report(desk, None)

    @app.get("/api/versions/{number}/report")
    def version_report(number: int) -> Response:
        return _report(desk, number)

    @app.post("/api/predict")
    async def predict(request: Request, cropped: bool = False, images: bool = True) -> Response:
        told = told_kind(request.headers.get("content-type", ""))
        check_length(request.headers.get("content-length"), limits.upload)
        if desk.busy >= limits.waiting:
            raise UploadError(503, f"{limits.waiting} uploads are under way already. Try again in a moment.")
        desk.busy += 1
        try:
            upload = await receive(request.stream(), limits.upload, limits.upload_seconds, told)
            return JSONResponse(await desk.judge(request, upload, cropped, images))
        except asyncio.CancelledError as error:  # only the server's end cancels a request
            raise UploadError(503, "the server is being stopped.") from error
        finally:
            desk.busy -= 1


def _report(desk: Desk, number: int | None) -> Response:
    text = read_report(desk.use.path, number)
    if text is None:
        raise UploadError(404, "there is no such report." if number is None else f"version {number} has no report.")
    return Response(text, media_type=TYPES["html"], headers={"Content-Security-Policy": REPORT_POLICY})


def _judge(desk: Desk, upload: Upload, cropped: bool, images: bool, stop: threading.Event) -> Record:
    """In a thread: the answer to one upload, which is gone afterwards."""
    try:
        if stop.is_set():
            raise Stopped
        ready, limits = desk.use.current(), desk.limits
        if upload.kind == PICTURE:
            answer = judge_picture(ready, upload, cropped, images)
        else:
            answer = judge_video(ready, upload, limits.frames, limits.video_seconds, cropped, images, stop)
        answer |= {"version": ready.detector.version, "rule": rule_of(ready.detector), "evidence": EVIDENCE}
        answer |= {"problem": desk.use.problem, "without_neighbours": ready.without}
        made: Record = finite(answer)
        return made
    finally:
        upload.close()


def describe(use: InUse, limits: Limits) -> dict[str, Any]:
    """The detector in use, how it decides, and what may be sent."""
    ready = use.current()
    detector, facts = ready.detector, ready.detector.facts
    stored = None if ready.evidence is None else f"{len(ready.evidence.paths)} {ready.evidence.kind}"
    return {
        "name": use.path.resolve().name,
        "lineage": use.lineage,
        "number": detector.number,
        "version": detector.version,
        "learner": detector.config.learner.name,
        "size": detector.size,
        "known": list(detector.known),
        "real_sources": real_sources(use.path),
        "rule": rule_of(detector),
        "ece_before": facts.ece_before,
        "ece_after": facts.ece_after,
        "stored": stored,
        "without_neighbours": ready.without,
        "problem": use.problem,
        "evidence": EVIDENCE,
        "max_upload": limits.upload,
        "video_frames": limits.frames,
        "video_seconds": limits.video_seconds,
    }
