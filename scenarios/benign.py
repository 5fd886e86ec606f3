"""Harmless edits of real faces: what people and programs do to pictures without forging anybody.

A detector that calls them forged is useless where pictures are shared. As perturbations (perturb.py) they act on the
prepared face, uint8 RGB (S, S, 3) at the learner's size, and change no person's features. Nothing is drawn at random.
PNG keeps every pixel, so of a screenshot only the new size and the screen's gamma remain. Sizes hold for `REFERENCE`
pixels a side and grow with the face.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from ffd_continual.scenarios.capture import CaptureProfile, apply_profile
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.perturb import REFERENCE

Picture = npt.NDArray[np.uint8]
_SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], np.float32)


@dataclass(frozen=True)
class Edit:
    """One harmless edit; kind: of which family it is, title: what it does."""

    name: str
    kind: str
    title: str
    make: Callable[[Picture], Picture]

    def apply(self, face: Picture) -> Picture:
        """The edited face, the same size, never the same array."""
        return self.make(face)


def _camera(face: Picture, **values: object) -> Picture:
    # A profile without noise and jitter draws nothing from its generator.
    return apply_profile(face, CaptureProfile("edit", **values), np.random.default_rng(0))  # type: ignore[arg-type]


def _bytes(values: npt.NDArray[np.float32]) -> Picture:
    return np.asarray(np.clip(values + 0.5, 0, 255), np.uint8)


def _warm(face: Picture) -> Picture:
    return _camera(face, cast=(1.1, 1.02, 0.86), contrast=1.06, saturation=1.15)


def _sepia(face: Picture) -> Picture:
    values = face.astype(np.float32)
    return _bytes(0.3 * values + 0.7 * np.minimum(values @ _SEPIA.T, 255))


def _vignette(face: Picture) -> Picture:
    height, width = face.shape[:2]
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    far = np.hypot((down + 0.5) / height - 0.5, (across + 0.5) / width - 0.5) / np.sqrt(0.5)
    return _bytes(face.astype(np.float32) * (1 - 0.55 * far**2.2)[..., None])


def _beauty(face: Picture) -> Picture:
    """Skin smoothed where it is even, edges kept, a little light added: the filter of a camera application."""
    reach = 4.5 * face.shape[0] / REFERENCE
    smooth = cv2.bilateralFilter(face, 0, 28.0, reach).astype(np.float32)
    return _bytes(0.15 * face.astype(np.float32) + 0.85 * smooth + 5)


def _superres(face: Picture) -> Picture:
    """Half the size and back by Lanczos, then an unsharp mask: what upscalers that invent nothing do."""
    height, width = face.shape[:2]
    small = cv2.resize(face, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_LANCZOS4).astype(np.float32)
    sigma = 1.2 * face.shape[0] / REFERENCE
    return _bytes(large + 0.8 * (large - cv2.GaussianBlur(large, (0, 0), sigma)))


def _screenshot(face: Picture) -> Picture:
    height, width = face.shape[:2]
    shown = cv2.resize(face, (round(1.4 * width), round(1.4 * height)), interpolation=cv2.INTER_LINEAR)
    shown = _camera(np.asarray(shown, np.uint8), gamma=0.88)
    return np.asarray(cv2.resize(shown, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg_twice(face: Picture) -> Picture:
    """Shared, and shared again by another service: the second grid lies four pixels apart from the first."""
    first = np.roll(_camera(face, jpeg=80), (4, 4), (0, 1))
    return np.ascontiguousarray(np.roll(_camera(first, jpeg=65), (-4, -4), (0, 1)))


def _video(face: Picture) -> Picture:
    return _camera(face, crf=22)


_ALL = (
    Edit("warm", "filter", "warm colours, more contrast", _warm),
    Edit("sepia", "filter", "brown tones", _sepia),
    Edit("vignette", "filter", "darker corners", _vignette),
    Edit("beauty", "retouching", "skin smoothed (bilateral), lighter", _beauty),
    Edit("superres", "super-resolution", "half size and back, sharpened", _superres),
    Edit("screenshot", "screenshot", "1.4 x and back, gamma 0.88, PNG", _screenshot),
    Edit("jpeg_twice", "re-encoding", "JPEG 80, then 65 on another grid", _jpeg_twice),
    Edit("h264", "re-encoding", "H.264, CRF 22", _video),
)
EDITS: Mapping[str, Edit] = MappingProxyType({edit.name: edit for edit in _ALL})


def edits_named(names: Sequence[str]) -> list[Edit]:
    """The edits of these names, all of them if none is given. FFDError on an unknown one, the nearest named."""
    for name in names:
        if name not in EDITS:
            near = difflib.get_close_matches(name, EDITS, 1, 0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise FFDError(f"no edit is named {name!r}.{hint} Known: {', '.join(EDITS)}.")
    return [EDITS[name] for name in dict.fromkeys(names or EDITS)]
