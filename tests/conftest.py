from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pandas as pd
import pytest

from ffd_continual.scenarios.studio.portrait import studio_faces

# Torch's and Avalanche's million objects live on: to search them for garbage took a seventh of the tests' time.
gc.set_threshold(200_000, 20, 100)


def pytest_collection_finish() -> None:
    gc.freeze()


def make_tiny_faces(
    folder: Path, people: int = 24, side: int = 48, forgeries: tuple[str, ...] = ("alpha", "beta", "gamma")
) -> Path:
    """Blobs with two eyes and a mouth, and forgeries that leave a stripe of their own: learnable in seconds."""
    rng = np.random.default_rng(5)
    rows = []
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    landmarks = np.stack([side / 2 + side / 4 * np.cos(angles), side / 2 + side / 4 * np.sin(angles)], 1)
    for person in range(people):
        split = "train" if person < people * 0.5 else "valid" if person < people * 0.7 else "test"
        face = np.full((side, side, 3), rng.integers(60, 200, 3), np.uint8)
        cv2.ellipse(
            face, (side // 2, side // 2), (side // 4, side // 3), 0, 0, 360, rng.integers(100, 255, 3).tolist(), -1
        )
        face = np.clip(face + rng.normal(0, 6, face.shape), 0, 255).astype(np.uint8)
        for number, forgery in enumerate(("real", *forgeries)):
            image, mask = face.copy(), np.zeros((side, side), np.uint8)
            if number:
                band = slice(10 * number, 10 * number + 6)
                image[band, 12:36, number % 3] = 255 - image[band, 12:36, number % 3]
                mask[band, 12:36] = 255
            path = folder / forgery / f"p{person:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image)
            row = {
                "path": f"{forgery}/p{person:03d}.png", "label": int(number > 0), "forgery": forgery, "split": split,
                "identity": f"p{person:03d}", "landmarks": json.dumps(landmarks.round(2).tolist()),
            }  # fmt: skip
            if number:
                mask_path = folder / "masks" / forgery / f"p{person:03d}.png"
                mask_path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(mask_path), mask)
                row |= {"pair": f"real/p{person:03d}.png", "mask": f"masks/{forgery}/p{person:03d}.png"}
            rows.append(row)
    pd.DataFrame(rows).fillna("").to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.fixture(autouse=True, scope="session")
def _opencv_has_one_thread() -> None:
    """As in every run of ours. Its pool of threads does not outlive a fork, and some tests fork this process."""
    cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def tiny_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_faces(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_config(tiny_faces: Path) -> dict[str, object]:
    """A run of three experiences that takes seconds: mapping for `config_from`."""
    return {
        "name": "tiny",
        "scenario": {"data": str(tiny_faces), "order": ["alpha", "beta"], "unseen": ["gamma"], "size": 48},
        "learner": {
            "name": "iin",
            "trunk": {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 4},
            "local": 16,
            "queue": 64,
        },
        "strategy": {"name": "iin", "exemplars": 8},
        "train": {"steps": 6, "batch": 12, "threads": 1, "eval_batch": 32, "device": "cpu"},
        "evaluation": {"bootstrap": 50, "samples": 1, "controls": False},
    }  # fmt: skip


def write_video(
    path: Path,
    pictures: Iterable[np.ndarray[Any, Any]],
    codec: str = "libx264",
    rate: int = 25,
    stamps: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A real video file of RGB pictures; `stamps`: each frame's time in milliseconds, for a rate that varies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    base = Fraction(1, 1000) if stamps else Fraction(1, rate)
    lossless = {"crf": "10", "preset": "ultrafast"} if codec == "libx264" else {}
    muxing = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=muxing) as container:
        stream: av.VideoStream | None = None
        for number, picture in enumerate(pictures):
            if stream is None:
                added = container.add_stream(codec, rate=rate, options=lossless | (options or {}))
                assert isinstance(added, av.VideoStream)
                stream = added
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = base
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = stamps[number] if stamps else number, base
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def video_writer() -> Callable[..., Path]:
    return write_video


@pytest.fixture(scope="session")
def studio_people() -> list[np.ndarray[Any, Any]]:
    """Three rendered faces, (128, 128, 3)."""
    return [face.image for face in studio_faces(3, 1, 4, 128, 1)]


def pan_over(
    face: np.ndarray[Any, Any], frames: int = 12, size: tuple[int, int] = (180, 240), forged: bool = False
) -> list[np.ndarray[Any, Any]]:
    """A face that moves a little to the right before a grey wall; `forged` paints a green patch on its cheek."""
    pictures = []
    for number in range(frames):
        picture = np.full((*size, 3), 90, np.uint8)
        left, top = 30 + number * 4 * 12 // frames, 26
        picture[top : top + 128, left : left + 128] = face
        if forged:
            picture[top + 70 : top + 95, left + 50 : left + 80, 1] = 230
        pictures.append(picture)
    return pictures


@pytest.fixture(scope="session")
def panned() -> Callable[..., list[np.ndarray[Any, Any]]]:
    return pan_over
