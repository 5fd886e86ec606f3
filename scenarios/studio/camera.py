"""The studio's own camera (lens, sensor, development, JPEG): it gives a rendered picture a photograph's statistics."""

from __future__ import annotations

import cv2
import numpy as np

from ffd_continual.scenarios.studio.fields import Field, cloud


def photograph(scene: Field, size: int, rng: np.random.Generator) -> Field:
    """Linear RGB scene (S, S, 3), S >= size -> uint8 RGB (size, size, 3) as a camera would store it.

    In order: vignetting, lens blur, sampling, shot and read noise (chroma noise smoothed, as demosaicing does), white
    balance, tone curve, sharpening, JPEG at a quality of 75 to 97.
    """
    side = scene.shape[0]
    light = cv2.GaussianBlur(scene, (0, 0), float(rng.uniform(0.27, 0.56)) * side / size)
    x = np.linspace(-1, 1, size, dtype=np.float32)
    light = cv2.resize(light, (size, size), interpolation=cv2.INTER_AREA)
    light = light * (1 - rng.uniform(0, 0.18) * (x[None, :] ** 2 + x[:, None] ** 2))[..., None]
    light = np.clip(light, 0, 1.6)
    amount = float(np.exp(rng.normal(np.log(0.0045), 0.5)))
    shot = amount * np.sqrt(0.15 * light + 0.004)
    luma = rng.standard_normal((size, size, 1), dtype=np.float32)
    chroma = rng.standard_normal((size, size, 3), dtype=np.float32)
    chroma = cv2.GaussianBlur(chroma, (0, 0), 0.9) * 1.6
    light = light + shot * (1.6 * luma + 0.9 * chroma)
    light = light * np.exp(rng.normal(0, 0.035, 3)).astype(np.float32)
    tone = np.clip(light, 0, None) ** np.float32(1 / rng.uniform(2.05, 2.35))
    # a shoulder in the lights and a toe in the shadows
    strength = np.float32(rng.uniform(0.0, 0.4))
    tone = np.clip(tone, 0, 1.15) / np.float32(1.06)
    tone = (1 - strength) * tone + strength * (tone * tone * (3 - 2 * np.minimum(tone, 1)))
    luma = tone.mean(axis=2, keepdims=True)
    tone = luma + np.float32(rng.uniform(0.85, 1.2)) * (tone - luma)
    if rng.random() < 0.04:
        tone = np.repeat(luma, 3, axis=2)
    tone = tone + rng.uniform(0.0, 0.4) * (tone - cv2.GaussianBlur(tone, (0, 0), 0.9))
    tone = tone + 0.0015 * cloud(rng, (size, size), 1.0)[..., None]
    stored = np.clip(tone * 255 + 0.5, 0, 255).astype(np.uint8)
    quality = int(rng.integers(75, 98))
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(stored[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: Field = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(decoded[..., ::-1], dtype=np.uint8)
