"""The studio's door: portraits of people who do not exist, whole or by the hundred."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.studio.camera import photograph
from ffd_continual.scenarios.studio.eyes import paint_eyes
from ffd_continual.scenarios.studio.fields import Field, Grid, blend
from ffd_continual.scenarios.studio.glasses import draw_glasses
from ffd_continual.scenarios.studio.hair import draw_strands, grow_beard, grow_hair, scalp_cover
from ffd_continual.scenarios.studio.head import form_of, height_field, landmarks_3d
from ffd_continual.scenarios.studio.person import Person, Shot, draw_person, draw_shot
from ffd_continual.scenarios.studio.scene import paint_background, paint_body
from ffd_continual.scenarios.studio.skin import Surface, paint_brows, paint_mouth, paint_skin
from ffd_continual.scenarios.studio.view import cast_rays, light_surface, view_of
from ffd_continual.scenarios.workers import worker_pool

_OVERSAMPLE = 2


def render_portrait(identity_seed: int, shot_seed: int, size: int = 128) -> Face:
    """Photograph number `shot_seed` of person number `identity_seed`: a crop of `size` px with exact landmarks.

    The same arguments give the same bytes on the same machine. Identity and name are "studio-000123" and
    "studio-000123-0".
    """
    if size < 32 or identity_seed < 0 or shot_seed < 0:
        raise FFDError(
            f"studio portrait {identity_seed}/{shot_seed} at {size} px: the size must be 32 px or more, "
            "the seeds 0 or more."
        )
    person = draw_person(identity_seed)
    shot = draw_shot(person, shot_seed)
    # one generator a purpose: what belongs to the person must not move with the photograph
    own = np.random.default_rng([identity_seed, 13])
    fixed = np.random.default_rng([identity_seed, 14])
    here = np.random.default_rng([identity_seed, shot_seed, 15])
    side = _OVERSAMPLE * size
    grid = Grid(scale=0.6 * size)
    form = form_of(person, shot)
    relief = height_field(person, shot, form, grid)
    points = landmarks_3d(person, form, relief, grid)
    view = view_of(shot, points, side)
    surface = _paint_face(person, shot, grid, own)
    colour = light_surface(surface, relief, grid, view, shot)
    column, row, covered, depth = cast_rays(view, relief, grid)
    head = cv2.remap(colour, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    scene = paint_background(side, here)
    behind = paint_body(scene, person, shot, view, here)
    # the outline is smoothed and drawn a little inside: the last ray of a steep side is not to be trusted
    mask = cv2.medianBlur(np.where(covered, np.uint8(255), np.uint8(0)), 5)
    edge = cv2.GaussianBlur(mask, (0, 0), 1.2).astype(np.float32) / 255
    blend(scene, head, np.clip(1.8 * edge - 0.8, 0, 1))
    covered = mask > 0
    behind = np.where(covered, depth, behind).astype(np.float32)
    picture = np.rint(255 * np.clip(scene, 0, 1) ** (1 / 2.2)).astype(np.uint8)
    thickness, density = max(1, round(size / 200)), size / 128
    beard = grow_beard(person, form, relief, grid, density, fixed)
    if beard is not None:
        draw_strands(picture, behind, beard, person, shot, view, thickness)
    draw_strands(picture, behind, grow_hair(person, density, fixed), person, shot, view, thickness)
    if person.glasses > 0:
        draw_glasses(picture, person, shot, view, points, here)
    light = (picture.astype(np.float32) / 255) ** np.float32(2.2)
    image = photograph(light, size, here)
    landmarks = (view.project(points)[:, :2] + 0.5) / _OVERSAMPLE - 0.5
    identity = f"studio-{identity_seed:06d}"
    return Face(image, np.asarray(landmarks, np.float32), identity, f"{identity}-{shot_seed}")


def _paint_face(person: Person, shot: Shot, grid: Grid, own: np.random.Generator) -> Surface:
    form = form_of(person, shot)
    surface = paint_skin(person, shot, form, grid, own)
    paint_mouth(surface, person, shot, form, grid, own)
    paint_eyes(surface, person, shot, form, grid, own)
    paint_brows(surface, person, form, grid, own)
    nostrils = grid.twin(0.46 * form.nose_width, form.nose_y + 0.045, 0.045, 0.024)
    surface.albedo *= np.exp(-2.0 * nostrils)[..., None]
    cover = scalp_cover(person, grid, own)
    roots: Field = np.asarray(person.hair_colour, np.float32) * (1 - person.grey) + 0.25 * person.grey
    blend(surface.albedo, roots * np.float32(0.45), cover)
    surface.gloss *= 1 - cover
    return surface


def studio_faces(
    people: int,
    shots: int,
    seed: int = 0,
    size: int = 128,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Face]:
    """`shots` photographs each of `people` persons, ordered by person; `seed` chooses a disjoint set of persons.

    `progress(done, total)` is called after each portrait. The result does not depend on `workers` (processes).
    """
    if people < 1 or shots < 1 or workers < 1:
        raise FFDError(f"studio: people ({people}), shots ({shots}) and workers ({workers}) must each be 1 or more.")
    if people > 100_000:
        raise FFDError(f"studio: {people} people asked for, 100000 are in one seed. Use several seeds.")
    jobs = [(seed * 100_000 + person, shot) for person in range(people) for shot in range(shots)]
    faces: list[Face] = []
    render = partial(_render, size=size)

    def collect(face: Face) -> None:
        faces.append(face)
        if progress is not None:
            progress(len(faces), len(jobs))

    if workers == 1:
        for job in jobs:
            collect(render(job))
        return faces
    with worker_pool(workers, partial(cv2.setNumThreads, 1)) as pool:
        for face in pool.map(render, jobs, chunksize=4):
            collect(face)
    return faces


def _render(job: tuple[int, int], size: int) -> Face:
    return render_portrait(*job, size=size)
