"""What to cut out, and in which form."""

from __future__ import annotations

from dataclasses import dataclass

from ffd_continual.scenarios.errors import FFDError

SUFFIX = {"jpg": ".jpg", "png": ".png", "webp": ".webp", "tar": ".jpg"}
MASKS = ("pair", "write", "ssim")


@dataclass(frozen=True)
class PrepareConfig:
    """What to cut out. `masks`: "pair" leaves them to the manifest's pairs, "write" (difference) and "ssim" do not."""

    frames: int = 32
    faces: int = 1
    size: int = 256
    enlarge: float = 1.3
    smallest: int = 24  # px, shorter side of a face's box
    longest: int = 640  # px, longer side of what the detector sees
    form: str = "jpg"
    quality: int = 95
    masks: str = "pair"


def check_config(config: PrepareConfig) -> None:
    """Raises FFDError for a setting out of range."""
    for name, value, low, high in (
        ("--frames", config.frames, 1, 1000),
        ("--faces", config.faces, 1, 16),
        ("--size", config.size, 32, 1024),
        ("--enlarge", config.enlarge, 1.0, 3.0),
        ("--quality", config.quality, 1, 100),
    ):
        if not low <= value <= high:
            raise FFDError(f"{name} {value} is out of range: choose {low} to {high}.")
    if config.form not in SUFFIX:
        raise FFDError(f"--format {config.form!r} is not known. Choose {', '.join(SUFFIX)}.")
    if config.masks not in MASKS:
        raise FFDError(f"--masks {config.masks!r} is not known. Choose {', '.join(MASKS)}.")
