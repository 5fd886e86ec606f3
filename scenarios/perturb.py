"""Perturbed test faces: what compression, blur, noise and the like do to a picture, at five severities.

They act on the *prepared* face: uint8 RGB at the learner's size, after the scenario's camera and before normalisation.
There a severity means the same for every data set, whatever the size of its files, nothing but the tested faces has to
be read, and a face keeps its crop: on the file itself, a larger picture would be shrunk afterwards and lose most of the
perturbation again. The price: a codec sees the crop alone, not the frame that it was cut from. Blur is given for
a face of `REFERENCE` pixels and grows with the face; resize and cut-out are shares of its side.

Everything but the cut-out passes through the cameras of `ffd_continual.scenarios.capture`. A face's noise and the place
of its cut-out are a pure function of (seed, manifest row, perturbation): the same at each severity, so that curves are
not rough by luck. All arrays are uint8 RGB (S, S, 3).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ffd_continual.scenarios.capture import CaptureProfile, apply_profile
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.views import keyed_generator

Picture = npt.NDArray[np.uint8]
SEVERITIES = 5
REFERENCE = 96  # pixels a side that lengths are given for
GREY = 128
_KEY = 917


@dataclass(frozen=True)
class Perturbation:
    """One way to spoil a picture. settings: of severity 1 to 5; limits: what a setting may be; title: what it is."""

    name: str
    title: str
    settings: tuple[float, ...]
    limits: tuple[float, float]
    make: Callable[[Picture, float, np.random.Generator], Picture]

    def apply(self, face: Picture, setting: float, seed: int, row: int) -> Picture:
        """The face (S, S, 3) at a setting; the same for the same (seed, manifest row), never the same array."""
        rng = keyed_generator(seed, row, _KEY, *self.name.encode())
        return self.make(face, setting, rng)


def _camera(**values: float | int) -> CaptureProfile:
    return CaptureProfile("perturbation", **values)  # type: ignore[arg-type]


def _jpeg(face: Picture, quality: float, rng: np.random.Generator) -> Picture:
    return apply_profile(face, _camera(jpeg=round(quality)), rng)


def _h264(face: Picture, crf: float, rng: np.random.Generator) -> Picture:
    return apply_profile(face, _camera(crf=round(crf)), rng)


def _blur(face: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    return apply_profile(face, _camera(blur=min(20.0, sigma * face.shape[0] / REFERENCE)), rng)


def _noise(face: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    return apply_profile(face, _camera(noise=sigma), rng)


def _resize(face: Picture, share: float, rng: np.random.Generator) -> Picture:
    return apply_profile(face, _camera(resolution=max(2, round(share * max(face.shape[:2])))), rng)


def _saturation(face: Picture, factor: float, rng: np.random.Generator) -> Picture:
    return apply_profile(face, _camera(saturation=factor), rng)


def _contrast(face: Picture, factor: float, rng: np.random.Generator) -> Picture:
    return apply_profile(face, _camera(contrast=factor), rng)


def _cutout(face: Picture, share: float, rng: np.random.Generator) -> Picture:
    """A grey square of `share` of the side, wholly inside, around a place that hangs on the generator alone."""
    height, width = face.shape[:2]
    side = max(1, round(share * min(height, width)))
    down, across = rng.random(2)
    top, left = int(down * (height - side + 1)), int(across * (width - side + 1))
    out = face.copy()
    out[top : top + side, left : left + side] = GREY
    return out


_ALL = (
    Perturbation("jpeg", "JPEG, quality", (90, 70, 50, 30, 15), (1, 100), _jpeg),
    Perturbation("h264", "H.264, CRF", (23, 28, 32, 36, 40), (0, 51), _h264),
    Perturbation("blur", f"blur, sigma in px of {REFERENCE}", (0.5, 0.8, 1.2, 1.8, 2.6), (0, 20), _blur),
    Perturbation("noise", "noise, sigma in grey levels", (3, 6, 10, 16, 25), (0, 80), _noise),
    Perturbation("resize", "shrunk and enlarged, share of the side", (0.75, 0.6, 0.45, 0.33, 0.25), (0.02, 1), _resize),
    Perturbation("saturation", "saturation, factor", (0.8, 0.6, 0.4, 0.2, 0.0), (0, 5), _saturation),
    Perturbation("contrast", "contrast, factor", (0.85, 0.7, 0.55, 0.4, 0.25), (0.05, 5), _contrast),
    Perturbation("cutout", "grey square, share of the side", (0.1, 0.2, 0.3, 0.4, 0.5), (0.01, 1), _cutout),
)
PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType({one.name: one for one in _ALL})


@dataclass(frozen=True)
class RobustnessConfig:
    """How test faces are perturbed. A run whose `perturb` is empty measures none; `ffd robust` then takes all."""

    perturb: tuple[str, ...] = ()  # of `PERTURBATIONS`
    settings: dict[str, tuple[float, ...]] = field(default_factory=dict)  # name -> five, severity 1 to 5, if others
    people: int = 0  # test persons, drawn by the scenario's seed; 0: all


def chosen(config: RobustnessConfig) -> list[tuple[Perturbation, tuple[float, ...]]]:
    """The perturbations with their settings. FFDError on an unknown name (the nearest is named) or a bad setting."""
    for name in (*config.perturb, *config.settings):
        if name not in PERTURBATIONS:
            near = difflib.get_close_matches(name, PERTURBATIONS, 1, 0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise FFDError(f"no perturbation is named {name!r}.{hint} Known: {', '.join(PERTURBATIONS)}.")
    if config.people < 0:
        raise FFDError(f"evaluation.robustness.people is a number of test persons, or 0 for all, not {config.people}.")
    names = dict.fromkeys(config.perturb or PERTURBATIONS)
    return [(PERTURBATIONS[name], _settings(PERTURBATIONS[name], config.settings.get(name, ()))) for name in names]


def _settings(perturbation: Perturbation, given: Sequence[float]) -> tuple[float, ...]:
    values = tuple(given) or perturbation.settings
    low, high = perturbation.limits
    if len(values) != SEVERITIES or any(not math.isfinite(v) or not low <= v <= high for v in values):
        raise FFDError(
            f"evaluation.robustness.settings.{perturbation.name}: {list(values)} are not {SEVERITIES} numbers from "
            f"{low:g} to {high:g}, mildest first ({perturbation.title}; the default is {list(perturbation.settings)})."
        )
    return values
