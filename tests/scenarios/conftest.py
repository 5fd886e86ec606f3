"""Files of data sets in miniature: a few rendered frames, encoded once and written under whatever name is asked for."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest

from ffd_continual.scenarios.check import split_faults
from ffd_continual.scenarios.datasets.listing import Item, Listing, Wanted, adapter
from ffd_continual.scenarios.manifest import make_manifest
from ffd_continual.scenarios.studio.portrait import render_portrait

Plant = Callable[..., None]


def _encoded(frames: list[np.ndarray], container: str, codec: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    return buffer.getvalue()


@pytest.fixture(scope="session")
def plant() -> Plant:
    """plant(root, *paths): real small files there; .mp4 and .avi are videos of 64 px and 6 frames, else pictures."""
    image = render_portrait(7, 0, 64).image
    frames = [np.roll(image, shift, axis=1) for shift in range(6)]
    picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    made = {
        ".mp4": _encoded(frames, "mp4", "libx264"),
        ".avi": _encoded(frames, "avi", "mpeg4"),
        ".png": cv2.imencode(".png", picture)[1].tobytes(),
        ".jpg": cv2.imencode(".jpg", picture)[1].tobytes(),
    }

    def write(root: Path, *paths: str) -> None:
        for path in paths:
            where = root / path
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_bytes(made[where.suffix or ".jpg"])

    return write


@pytest.fixture(scope="session")
def read() -> Callable[..., Listing]:
    """read("celebdf", root, forgeries=...): what that adapter finds there."""

    def index(name: str, root: Path, **wanted: tuple[str, ...]) -> Listing:
        return adapter(name).index(root, Wanted(**wanted))

    return index


@pytest.fixture(scope="session")
def by_path() -> Callable[[Listing], dict[str, Item]]:
    """The items of a listing by their path; no path and no clip comes twice."""

    def sort(listing: Listing) -> dict[str, Item]:
        found = {item.path: item for item in listing.items}
        assert len(found) == len({item.video for item in listing.items}) == len(listing.items)
        return found

    return sort


@pytest.fixture(scope="session")
def faults_of() -> Callable[[Listing], list[str]]:
    """The kinds of faults that `ffd check` finds in the splits of a listing, one face a clip."""

    def check(listing: Listing) -> list[str]:
        columns = ("label", "forgery", "dataset", "split", "video", "identity", "source_identity")
        table = pd.DataFrame({name: [getattr(item, name) for item in listing.items] for name in columns})
        table["path"] = [f"{item.dataset}/{item.video}.png" for item in listing.items]
        table["pair"] = [f"{item.dataset}/{item.pair}.png" if item.pair else "" for item in listing.items]
        return [fault.kind for fault in split_faults(make_manifest(table, Path("."), "listing"))]

    return check
