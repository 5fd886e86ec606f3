"""The scenario that needs no data: rendered portraits, forged by the same code that works on photographs."""

from __future__ import annotations

from pathlib import Path

from ffd_continual.scenarios.manifest import Manifest
from ffd_continual.scenarios.streams import ScenarioConfig


def studio_manifest(config: ScenarioConfig, cache: Path, workers: int) -> Manifest:
    raise ValueError
