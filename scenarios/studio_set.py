"""The data set that needs no data: rendered portraits, forged by the same code that works on photographs."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.forging.forge import ForgeConfig, forge_portraits
from ffd_continual.scenarios.forging.making import working_size
from ffd_continual.scenarios.forging.portraits import Portrait
from ffd_continual.scenarios.manifest import Manifest, read_manifest
from ffd_continual.scenarios.streams import ScenarioConfig
from ffd_continual.scenarios.studio.portrait import studio_faces

#: Raised whenever rendering or forging changes: older cached sets are then not used any more.
VERSION = 3
SIZE = 128


def studio_manifest(config: ScenarioConfig, cache: Path, workers: int) -> Manifest:
    """Render and forge the people that a scenario asks for, once: the set lies in `cache` under its settings' name.

    Raises FFDError when the scenario names no forgeries (a studio set has only those that are asked for).
    """
    families = tuple(sorted({part for entry in config.order for part in entry.split("+")} | set(config.unseen)))
    if not families:
        raise FFDError("scenario.order is empty: name the forgeries to make of studio faces (`ffd list families`).")
    name = f"studio-v{VERSION}-{config.studio_people}x{config.studio_shots}-s{config.seed}"
    folder = cache / name
    done = folder / "manifest.parquet"
    if done.is_file():
        manifest = read_manifest(done)
        if set(families) <= set(manifest.forgeries):
            return manifest
    bar = tqdm(total=config.studio_people * config.studio_shots, desc="rendering portraits", unit="face")
    with bar:
        faces = studio_faces(
            config.studio_people,
            config.studio_shots,
            config.seed,
            working_size(SIZE),
            workers,
            lambda finished, _: bar.update(finished - bar.n) and None,
        )
    portraits = [Portrait(face, "studio") for face in faces]
    forge_portraits(portraits, folder, ForgeConfig(families=families, size=SIZE, seed=config.seed, workers=workers))
    return read_manifest(done)
