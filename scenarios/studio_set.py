"""The data set that needs no data: rendered portraits, forged by the same code that works on photographs."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.forging.forge import ForgeConfig, forge_portraits
from ffd_continual.scenarios.forging.making import working_size
from ffd_continual.scenarios.forging.portraits import Portrait
from ffd_continual.scenarios.manifest import Manifest, read_manifest
from ffd_continual.scenarios.pictures import write_bytes, write_picture
from ffd_continual.scenarios.streams import ScenarioConfig
from ffd_continual.scenarios.studio.person import draw_person
from ffd_continual.scenarios.studio.portrait import studio_faces
from ffd_continual.scenarios.subgroups import FILE as PEOPLE
from ffd_continual.scenarios.subgroups import write_people

#: Raised whenever rendering or forging changes: older cached sets are then not used any more.
VERSION = 3
SIZE = 128


def studio_people(people: int, seed: int) -> dict[str, dict[str, str]]:
    """What the studio knows of the persons of `studio_faces(people, ..., seed)`: {identity: {skin, age, sex, glasses}}.

    skin: light, medium or dark by the melanin it is drawn with; age in years; sex as the features are drawn.
    """
    told = {}
    for number in range(seed * 100_000, seed * 100_000 + people):
        one = draw_person(number)
        skin = "light" if one.melanin < 0.25 else "medium" if one.melanin < 0.5 else "dark"
        told[f"studio-{number:06d}"] = {
            "skin": skin,
            "age": f"{one.age:.0f}",
            "sex": "female" if one.feminine > 0.5 else "male",
            "glasses": "yes" if one.glasses > 0 else "no",
        }
    return told


def studio_portraits(folder: Path, people: int, seed: int, size: int, workers: int, progress: bool = True) -> Path:
    """Render one portrait of each person as a file, with people.csv beside them; what is there already is kept."""
    known = studio_people(people, seed)
    paths = [folder / f"{name}_0.png" for name in known]
    if not all(path.is_file() for path in paths):
        bar = tqdm(total=people, desc="rendering portraits", unit="face", disable=not progress)
        with bar:
            faces = studio_faces(people, 1, seed, size, workers, lambda done, _: bar.update(done - bar.n) and None)
        for path, face in zip(paths, faces, strict=True):
            write_picture(path, face.image)
    write_bytes(folder / PEOPLE, write_people(("skin", "age", "sex", "glasses"), known))
    return folder


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
