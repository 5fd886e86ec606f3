from __future__ import annotations

import dataclasses
import time

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.studio.fields import Grid, cloud, curve, sample
from ffd_continual.scenarios.studio.head import form_of, height_field, landmarks_3d
from ffd_continual.scenarios.studio.person import Shot, draw_person, draw_shot, skin_colour
from ffd_continual.scenarios.studio.portrait import render_portrait, studio_faces
from ffd_continual.scenarios.studio.view import cast_rays, view_of


@pytest.fixture(scope="module")
def faces() -> list[Face]:
    return [render_portrait(seed, 0, 128) for seed in range(24)]


def test_a_portrait_meets_the_face_contract(faces: list[Face]) -> None:
    for seed, face in enumerate(faces):
        assert face.image.shape == (128, 128, 3)
        assert face.image.dtype == np.uint8
        assert face.landmarks.shape == (68, 2)
        assert face.landmarks.dtype == np.float32
        assert face.identity == f"studio-{seed:06d}"
        assert np.isfinite(face.landmarks).all()
        assert face.landmarks.min() > 0
        assert face.landmarks.max() < 127
        # the hull takes half of the crop
        assert np.ptp(face.landmarks, axis=0).max() == pytest.approx(64, abs=0.5)


def test_landmarks_are_in_ibug_order_as_seen_in_the_picture(faces: list[Face]) -> None:
    mean = np.mean([face.landmarks for face in faces], axis=0)
    x, y = mean[:, 0], mean[:, 1]
    assert (np.diff(x[:17]) > 0).all()
    assert y[8] == y.max()
    assert (np.diff(x[17:27]) > 0).all()
    assert (np.diff(y[27:31]) > 0).all()
    assert (np.diff(x[31:36]) > 0).all()
    assert x[36] < x[39] < x[42] < x[45]
    assert y[37] < y[41]
    assert y[44] < y[46]
    assert x[48] < x[51] < x[54]
    assert y[51] < y[57]
    assert x[60] < x[64]
    assert y[17:27].max() < y[36:48].min() < y[30] < y[48:68].min()


def test_the_same_seeds_give_the_same_bytes_and_others_do_not(faces: list[Face]) -> None:
    again = render_portrait(5, 0, 128)
    assert np.array_equal(again.image, faces[5].image)
    assert np.array_equal(again.landmarks, faces[5].landmarks)
    assert not np.array_equal(render_portrait(5, 1, 128).image, again.image)


def test_workers_do_not_change_the_result_and_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    alone = studio_faces(2, 2, seed=3, size=48, progress=lambda done, total: seen.append((done, total)))
    together = studio_faces(2, 2, seed=3, size=48, workers=2)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [f.identity for f in alone] == ["studio-300000"] * 2 + ["studio-300001"] * 2
    assert all(np.array_equal(a.image, b.image) for a, b in zip(alone, together, strict=True))
    assert len({f.name for f in alone}) == 4


def test_identity_is_kept_between_photographs() -> None:
    person = draw_person(7)
    assert person == draw_person(7)
    one, two = draw_shot(person, 0), draw_shot(person, 1)
    assert one == draw_shot(person, 0)
    assert one.yaw != two.yaw
    assert draw_person(8).skin != person.skin


def test_persons_cover_the_human_range() -> None:
    people = [draw_person(seed) for seed in range(400)]
    light = np.array([p.skin[1] for p in people])
    assert light.max() > 0.4
    assert light.min() < 0.06
    assert {p.hair for p in people} >= {"long", "bob", "short", "swept", "bald", "afro"}
    assert 0.05 < np.mean([p.glasses > 0 for p in people]) < 0.5
    assert 0.05 < np.mean([p.beard > 0 for p in people]) < 0.3
    assert not any(p.beard and p.feminine > 0.5 for p in people)
    shots = [draw_shot(p, 0) for p in people]
    assert np.degrees(np.abs([s.yaw for s in shots]).max()) < 26


def test_more_melanin_means_darker_skin_in_every_channel() -> None:
    tones = np.array([skin_colour(m, 0.0, 0.5) for m in np.linspace(0, 1, 9)])
    assert (np.diff(tones, axis=0) < 0).all()
    assert (tones[:, 0] > tones[:, 1]).all()
    assert (tones[:, 1] > tones[:, 2]).all()


def test_pictures_look_like_photographs_to_simple_statistics(faces: list[Face]) -> None:
    """Bounds around what portrait photographs measure at this size, so that a detector can carry over."""
    grey = np.stack([cv2.cvtColor(f.image, cv2.COLOR_RGB2GRAY) for f in faces]).astype(np.float32)
    spectrum = np.mean(np.abs(np.fft.fftshift(np.fft.fft2(grey * np.outer(np.hanning(128), np.hanning(128))))) ** 2, 0)
    radius = np.hypot(*(np.indices((128, 128)) - 64)).astype(int)
    profile = np.bincount(radius.ravel(), spectrum.ravel()) / np.bincount(radius.ravel())
    slope = np.polyfit(np.log(np.arange(4, 50)), np.log(profile[4:50]), 1)[0]
    assert -4.2 < slope < -2.2
    sharpness = [cv2.Laplacian(g[40:90, 40:88], cv2.CV_32F).var() for g in grey]
    assert 300 < np.median(sharpness) < 1600
    assert 90 < grey[:, 40:90, 40:88].mean() < 180


def test_landmarks_lie_on_the_rendered_surface() -> None:
    """The depth that the rays find at a landmark's pixel is the landmark's own, unless the nose hides it."""
    person = draw_person(3)
    shot = dataclasses.replace(draw_shot(person, 0), yaw=0.1, pitch=0.05)
    grid = Grid(80.0)
    form = form_of(person, shot)
    relief = height_field(person, shot, form, grid)
    points = landmarks_3d(person, form, relief, grid)
    view = view_of(shot, points, 256)
    _, _, covered, depth = cast_rays(view, relief, grid)
    seen = view.project(points)[17:]
    at = np.rint(seen[:, :2]).astype(int)
    assert covered[at[:, 1], at[:, 0]].all()
    error = np.abs(depth[at[:, 1], at[:, 0]] - seen[:, 2])
    assert np.median(error) < 0.01
    assert np.mean(error < 0.08) > 0.9


def test_rays_find_the_first_surface_of_a_known_field() -> None:
    grid = Grid(40.0)
    x, y = grid.xs, grid.ys
    sphere = np.sqrt(np.clip(1 - x * x - y * y, 0, None)) - 3.0 * (x * x + y * y > 1)
    person = draw_person(0)
    shot = dataclasses.replace(draw_shot(person, 0), yaw=0.0, pitch=0.0, roll=0.0, distance=1e6)
    frame = np.array([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]], np.float32)
    view = view_of(shot, frame, 96)
    column, row, covered, depth = cast_rays(view, sphere.astype(np.float32), grid)
    hx, hy = column / grid.scale + grid.left, row / grid.scale + grid.top
    inside = covered & (hx**2 + hy**2 < 0.8)
    truth = np.sqrt(np.clip(1 - hx**2 - hy**2, 0, None)) - 0.2  # camera depth is counted from the pivot
    assert inside.sum() > 500
    assert np.abs(depth - truth)[inside].max() < 0.03
    assert not covered[0, 0]


def test_a_smile_moves_the_mouths_corners_up_and_out() -> None:
    person = draw_person(4)
    still = dataclasses.replace(draw_shot(person, 0), smile=0.0, open=0.0)
    grid = Grid(60.0)

    def mouth(shot: Shot) -> NDArray[np.float32]:
        form = form_of(person, shot)
        return landmarks_3d(person, form, height_field(person, shot, form, grid), grid)

    calm, smiling = mouth(still), mouth(dataclasses.replace(still, smile=1.0))
    agape = mouth(dataclasses.replace(still, open=1.0))
    assert smiling[54, 0] > calm[54, 0]
    assert smiling[54, 1] < calm[54, 1]
    assert agape[66, 1] - agape[62, 1] > calm[66, 1] - calm[62, 1] + 0.1
    assert agape[8, 1] > calm[8, 1]


def test_fields_curves_and_samples() -> None:
    rng = np.random.default_rng(0)
    assert cloud(rng, (300, 300), 6.0, 3).std() == pytest.approx(1, abs=0.2)
    knots = [0.0, 1.0, 3.0, 4.0]
    assert curve(knots, [2 * k + 1 for k in knots], np.array([0.5, 2.2, 9.0])) == pytest.approx([2, 5.4, 9])
    field = np.add.outer(np.arange(50), 2.0 * np.arange(60)).astype(np.float32)
    column, row = rng.uniform(1, 58, 20000), rng.uniform(1, 48, 20000)
    assert sample(field, column, row) == pytest.approx(row + 2 * column, abs=0.2)
    assert sample(field, np.array([-5.0]), np.array([3.0]), outside=-7.0)[0] == -7


def test_bad_requests_are_explained() -> None:
    with pytest.raises(FFDError, match="32 px"):
        render_portrait(0, 0, 8)
    with pytest.raises(FFDError, match="1 or more"):
        studio_faces(0, 1)


def test_a_portrait_takes_a_fraction_of_a_second() -> None:
    start = time.process_time()
    for seed in range(4):
        render_portrait(seed, 1, 128)
    assert (time.process_time() - start) / 4 < 0.5


@pytest.mark.slow
def test_a_face_detector_finds_the_faces() -> None:
    from ffd_continual.scenarios.faces import FaceFinder, locate_model

    try:
        locate_model("detector")
    except FFDError as error:
        pytest.skip(str(error))
    finder = FaceFinder()
    found = []
    for seed in range(60):
        face = render_portrait(500 + seed, 0, 128)
        found.append(
            bool(finder.find(np.asarray(cv2.resize(face.image, (256, 256), interpolation=cv2.INTER_CUBIC), np.uint8)))
        )
    assert np.mean(found) >= 0.95
