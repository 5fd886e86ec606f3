"""Capture profiles: the cameras, codecs and sites that a face picture has passed through.

A profile is a short, fixed chain: exposure (white-balance gains, gamma, contrast, saturation), optics (low resolution,
blur), sensor (noise), codec (JPEG, H.264). With `jitter` > 0 a profile is a distribution rather than one camera: each
parameter is redrawn around its value for each picture. All arrays are uint8 RGB (H, W, 3).
"""

from __future__ import annotations

import difflib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from ffd_continual.scenarios.errors import FFDError

Image = npt.NDArray[np.uint8]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class CaptureProfile:
    """One camera and codec. Every default is "leaves the picture as it is".

    resolution: side in px that the crop is shrunk to and enlarged from (0: not). blur: Gaussian sigma in px.
    noise: sigma in grey levels at mid-grey, with a shot-noise share that grows with the light. cast: (r, g, b) gains.
    gamma: exponent on [0, 1], above 1 darkens. contrast, saturation: factors about mid-grey and about the luma.
    jpeg: quality 1-100 (0: none). crf: H.264 constant rate factor 0-51 (None: none). jitter: relative spread of each
    parameter from picture to picture, 0 to 0.5.
    """

    name: str
    resolution: int = 0
    blur: float = 0.0
    noise: float = 0.0
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    jpeg: int = 0
    crf: int | None = None
    jitter: float = 0.0

    def __post_init__(self) -> None:
        for key, (low, high) in _RANGES.items():
            value = getattr(self, key)
            for part in value if isinstance(value, tuple) else (value,):
                if part is not None and not low <= part <= high:
                    raise FFDError(
                        f"capture profile {self.name!r}: {key} is {part}, outside {low} to {high}. "
                        f"Set {key} within that range, or leave it out."
                    )


_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "resolution": (0, 8192),
        "blur": (0, 20),
        "noise": (0, 80),
        "cast": (0.2, 5),
        "gamma": (0.2, 5),
        "contrast": (0.05, 5),
        "saturation": (0, 5),
        "jpeg": (0, 100),
        "crf": (0, 51),
        "jitter": (0, 0.5),
    }
)


def randomised(profile: CaptureProfile, rng: np.random.Generator) -> CaptureProfile:
    """Draw this picture's own version of `profile`: each parameter times exp(jitter * N(0, 1)), |N| cut at 2.

    A parameter that is off stays off. Qualities move on the scale of what they throw away (101 - quality), so that a
    JPEG 90 stays a good one. The result has jitter 0. With jitter 0 the profile itself comes back.
    """
    if profile.jitter == 0:
        return profile
    factor = np.exp(profile.jitter * np.clip(rng.standard_normal(10), -2, 2))
    red, green, blue = (
        float(np.clip(gain * g, 0.2, 5)) for gain, g in zip(profile.cast, factor[3:6] ** 0.15, strict=True)
    )
    # exposure is seen at once while blur or noise may double unnoticed, hence the smaller share
    gentle = np.exp(0.3 * np.log(factor))
    return replace(
        profile,
        resolution=max(8, round(profile.resolution * gentle[0])) if profile.resolution else 0,
        blur=min(20.0, float(profile.blur * factor[1])),
        noise=min(80.0, float(profile.noise * factor[2])),
        cast=(red, green, blue),
        gamma=float(np.clip(profile.gamma * gentle[6], 0.2, 5)),
        contrast=float(np.clip(profile.contrast * gentle[7], 0.05, 5)),
        saturation=float(np.clip(profile.saturation * gentle[8], 0, 5)),
        jpeg=int(np.clip(round(101 - (101 - profile.jpeg) * factor[9]), 5, 100)) if profile.jpeg else 0,
        crf=None if profile.crf is None else int(np.clip(round(profile.crf + 6 * math.log2(factor[9])), 0, 51)),
        jitter=0.0,
    )


def apply_profile(image: Image, profile: CaptureProfile, rng: np.random.Generator) -> Image:
    """Return `image` as this camera would have delivered it: same size, uint8 RGB, never the same array.

    Deterministic in `rng`'s state. A grey picture (r = g = b everywhere) stays grey: cast has no effect on it, noise is
    the same in the three channels, and chroma that a codec invents is removed.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise FFDError(
            f"capture profile {profile.name!r}: the picture is {image.dtype} {image.shape}, not uint8 (H, W, 3) RGB. "
            "Read it with read_picture first."
        )
    profile = randomised(profile, rng)
    grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())
    light: Any = _expose(image, profile, grey)
    height, width = image.shape[:2]
    if profile.resolution:
        scale = profile.resolution / max(height, width)
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        if scale < 1:
            light = cv2.resize(light, small, interpolation=cv2.INTER_AREA)
            light = cv2.resize(light, (width, height), interpolation=cv2.INTER_CUBIC)
    if profile.blur > 0:
        light = cv2.GaussianBlur(light, (0, 0), profile.blur)
    if profile.noise > 0:
        draw = rng.standard_normal((height, width, 1 if grey else 3), dtype=np.float32)
        # variance: a third is read noise, two thirds are shot noise, equal to noise**2 at mid-grey
        sigma = profile.noise / 255 * np.sqrt(1 / 3 + 4 / 3 * np.clip(light, 0, 1))
        light = light + sigma * draw
    out: Image = np.clip(light * 255 + 0.5, 0, 255).astype(np.uint8)
    if profile.jpeg:
        out = _jpeg(out, profile.jpeg)
    if profile.crf is not None:
        out = h264_frame(out, profile.crf)
    if grey and (profile.crf is not None or profile.jpeg):
        luma = np.clip(out.astype(np.float32) @ _LUMA + 0.5, 0, 255).astype(np.uint8)
        out = np.repeat(luma[..., None], 3, axis=2)
    return out


def _expose(image: Image, profile: CaptureProfile, grey: bool) -> Any:
    """Cast, gamma and contrast act on one channel at a time: one table look-up; saturation mixes channels after it."""
    ramp = np.arange(256, dtype=np.float32)[:, None] / 255
    cast = np.ones(3, np.float32) if grey else np.asarray(profile.cast, np.float32)
    table = np.clip(ramp * cast, 0, 1) ** profile.gamma
    table = ((table - 0.5) * profile.contrast + 0.5).astype(np.float32)
    light: Any = np.stack([table[:, c][image[..., c]] for c in range(3)], axis=-1)
    if profile.saturation != 1 and not grey:
        luma = (light @ _LUMA)[..., None]
        light = luma + profile.saturation * (light - luma)
    return light


def _jpeg(image: Image, quality: int) -> Image:
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if done else None
    if decoded is None:
        raise FFDError("this OpenCV build cannot write JPEG. Install opencv-python-headless from its wheel.")
    flipped: Image = np.ascontiguousarray(decoded[..., ::-1], dtype=np.uint8)
    return flipped


def h264_frame(image: Image, crf: int) -> Image:
    """Encode `image` as a one-frame libx264 video (yuv420p, one thread, so the same bytes each time) and decode it.

    Odd sides are padded by repeating the last row or column, as 4:2:0 needs even ones.
    """
    height, width = image.shape[:2]
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="matroska") as container:
            stream = container.add_stream("libx264", rate=Fraction(25))
            stream.width, stream.height, stream.pix_fmt = even.shape[1], even.shape[0], "yuv420p"
            stream.options = {"crf": str(crf), "preset": "fast", "threads": "1"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            container.mux(stream.encode(None))
        buffer.seek(0)
        with av.open(buffer, "r") as container:
            frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    except av.FFmpegError as error:
        raise FFDError(f"H.264 failed on a {width}x{height} picture: {error}. Use jpeg in place of crf.") from error
    return np.ascontiguousarray(frame[:height, :width])


_CAMERAS = (
    CaptureProfile("camera1", jpeg=90),
    CaptureProfile("camera2", blur=0.8, cast=(1.08, 1.0, 0.88), noise=6, jpeg=45),
    CaptureProfile("camera3", resolution=72, gamma=1.4, jpeg=70),
    CaptureProfile("camera4", contrast=0.7, noise=10, jpeg=30),
    CaptureProfile("phone", blur=0.4, noise=3, contrast=1.12, saturation=1.25, gamma=0.92, jpeg=80),
    CaptureProfile("webcam", resolution=96, blur=0.5, noise=5, cast=(0.95, 1.0, 1.08), crf=26),
    CaptureProfile("cctv", resolution=48, blur=0.6, noise=9, contrast=0.85, saturation=0.5, jpeg=40),
    CaptureProfile("film_scan", blur=0.7, noise=7, cast=(1.06, 1.0, 0.92), gamma=0.9, contrast=0.9, jpeg=85),
    CaptureProfile("night", noise=16, gamma=1.5, cast=(1.12, 1.0, 0.8), blur=0.6, jpeg=60),
    CaptureProfile("messenger", resolution=100, saturation=1.05, jpeg=35),
    CaptureProfile("broadcast", blur=0.5, contrast=1.05, crf=23),
)

PROFILES: Mapping[str, CaptureProfile] = MappingProxyType({profile.name: profile for profile in _CAMERAS})
"""The named cameras, by name. Resolutions are for 128 px crops."""


def named_profile(name: str) -> CaptureProfile:
    """The camera of that name in `PROFILES`; FFDError with the nearest and all known names where there is none."""
    if name not in PROFILES:
        raise FFDError(f"no capture profile is named {name!r}.{_nearest(name, PROFILES)} Known: {', '.join(PROFILES)}.")
    return PROFILES[name]


def profile_from_mapping(name: str, values: Mapping[str, Any]) -> CaptureProfile:
    """Build the profile `name` from a config's mapping. Unknown keys (nearest named) and wrong types raise FFDError.

    An optional key `like` takes a camera of `PROFILES` as the starting point.
    """
    known = [field.name for field in fields(CaptureProfile) if field.name != "name"]
    start = CaptureProfile(name)
    taken: dict[str, Any] = {}
    for key, value in values.items():
        if key == "like":
            start = replace(named_profile(str(value)), name=name)
        elif key not in known:
            raise FFDError(
                f"capture profile {name!r} has no setting {key!r}.{_nearest(key, known)} "
                f"Known: {', '.join(known)}, like."
            )
        else:
            taken[key] = _typed(name, key, value)
    return replace(start, **taken)


def _typed(name: str, key: str, value: Any) -> Any:
    def number(part: Any) -> bool:
        return isinstance(part, int | float) and not isinstance(part, bool) and math.isfinite(part)

    if key == "cast":
        if isinstance(value, list | tuple) and len(value) == 3 and all(number(part) for part in value):
            return tuple(float(part) for part in value)
        wanted = "three gains [r, g, b]"
    elif key == "crf" and value is None:
        return None
    elif key in ("resolution", "jpeg", "crf"):
        if number(value) and float(value).is_integer():
            return int(value)
        wanted = "a whole number"
    else:
        if number(value):
            return float(value)
        wanted = "a number"
    raise FFDError(f"capture profile {name!r}: {key} is {value!r}, not {wanted}. Correct it in the configuration.")


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
