"""Sample pictures with the detector's trace map laid over them, as small data URIs."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ffd_continual.scenarios.errors import FFDError

Picture = NDArray[np.uint8]
SIDE = 192  # pixels in the page: enough to see a trace, 10 kB a picture
OUTLINE = (0, 229, 255)  # cyan, absent from faces and from the heat colours


def _read(folder: Path, name: Any, grey: bool) -> Picture | None:
    """A picture named in samples/index.json, RGB or grey; None where the index names none."""
    if not name:
        return None
    path = (folder / str(name)).resolve()
    if not path.is_file():  # an index may name its files from the run's folder
        path = (folder.parent / str(name)).resolve()
    if not path.is_relative_to(folder.parent.resolve()):
        raise FFDError(f"samples/index.json names {name}, which lies outside the run's folder")
    data = np.frombuffer(path.read_bytes(), np.uint8) if path.is_file() else np.zeros(0, np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
        raise FFDError(f"the sample {path} is missing or no picture: evaluate the run again, or delete samples/")
    if not grey:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return np.asarray(picture, dtype=np.uint8)


def overlay(picture: Picture, trace: Picture, mask: Picture | None = None) -> Picture:
    """Heat of `trace` (h, w), 0-255, over the greyed picture (H, W, 3); the true mask's outline in cyan.

    The map's opacity grows with its value, so a map that says nothing leaves the face as it is.
    """
    height, width = picture.shape[:2]
    value = cv2.resize(trace, (width, height), interpolation=cv2.INTER_LINEAR)
    heat = cv2.cvtColor(cv2.applyColorMap(value, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB).astype(np.float32)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32)
    share = 0.85 * (value.astype(np.float32) / 255.0)[..., None]
    mixed = np.clip(grey * (1 - share) + heat * share, 0, 255).astype(np.uint8)
    if mask is not None and mask.any():
        inside = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        edges, _ = cv2.findContours((inside > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mixed, edges, -1, OUTLINE, max(1, round(width / 150)))
    return np.asarray(mixed, dtype=np.uint8)


def data_uri(picture: Picture) -> str:
    """RGB (H, W, 3) as a JPEG data URI of at most SIDE pixels."""
    scale = SIDE / max(picture.shape[:2])
    if scale != 1:
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        picture = np.asarray(cv2.resize(picture, size, interpolation=way), dtype=np.uint8)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not done:
        raise FFDError("a sample picture could not be encoded as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def load_sample(folder: Path, entry: dict[str, Any]) -> tuple[Picture, Picture | None] | None:
    """(picture, picture with its map) of an entry of samples/index.json; None where it names no picture."""
    picture = _read(folder, entry.get("picture"), grey=False)
    if picture is None:
        return None
    trace, mask = _read(folder, entry.get("map"), grey=True), _read(folder, entry.get("mask"), grey=True)
    if trace is None:
        return picture, None
    return picture, overlay(picture, trace, mask)


def contact_sheet(rows: list[list[Picture]], side: int = 160) -> Picture:
    """Pictures as one white sheet, a row a forgery."""
    width = max((len(row) for row in rows), default=0)
    sheet = np.full((len(rows) * (side + 6) + 6, width * (side + 6) + 6, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            y, x = 6 + r * (side + 6), 6 + c * (side + 6)
            sheet[y : y + side, x : x + side] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return sheet
