from __future__ import annotations

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from ffd_continual.replay.clusters import fit_clusters, follow_clusters, one_faiss_thread


def blobs(seed: int = 0, each: int = 30) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    centres = np.array([[5, 0, 0], [0, 5, 0], [0, 0, 5]], dtype=np.float32)
    truth = np.repeat(np.arange(3), each)
    return (centres[truth] + 0.1 * rng.standard_normal((3 * each, 3))).astype(np.float32), truth


def test_separate_blobs_are_found() -> None:
    points, truth = blobs()
    centroids, assignment = fit_clusters(points, 3, seed=0)
    assert centroids.shape == (3, 3)
    for label in range(3):
        assert len(set(assignment[truth == label])) == 1
    for index in range(3):
        np.testing.assert_allclose(centroids[index], points[assignment == index].mean(axis=0), atol=1e-4)


def test_assignment_is_the_nearest_centroid() -> None:
    points = np.random.default_rng(1).standard_normal((200, 8)).astype(np.float32)
    centroids, assignment = fit_clusters(points, 10, seed=3)
    for point, given in zip(points, assignment, strict=True):
        distances = [float(((point - centroid) ** 2).sum()) for centroid in centroids]
        assert distances[given] <= min(distances) + 1e-4


def test_same_seed_same_bits_whatever_the_threads_and_they_are_restored() -> None:
    points = np.random.default_rng(2).standard_normal((3000, 16)).astype(np.float32)
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(2)
        first = fit_clusters(points, 20, seed=7)
        assert faiss.omp_get_max_threads() == 2
        faiss.omp_set_num_threads(1)
        second = fit_clusters(points, 20, seed=7)
    finally:
        faiss.omp_set_num_threads(before)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert not np.array_equal(first[0], fit_clusters(points, 20, seed=8)[0])


def test_threads_are_restored_after_an_error() -> None:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    with one_faiss_thread():
        inside = faiss.omp_get_max_threads()
    with pytest.raises(KeyError), one_faiss_thread():
        raise KeyError
    after = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(before)
    assert inside == 1
    assert after == 2


@pytest.mark.parametrize(("points", "k", "most"), [(1, 5, 1), (3, 5, 1), (8, 5, 2), (400, 5, 5)])
def test_few_points_scale_k_down(points: int, k: int, most: int) -> None:
    features = np.random.default_rng(0).standard_normal((points, 4)).astype(np.float32)
    centroids, assignment = fit_clusters(features, k, seed=0)
    assert len(centroids) == most
    assert assignment.shape == (points,)


def test_empty_clusters_are_dropped() -> None:
    features = np.repeat(np.eye(2, dtype=np.float32), 20, axis=0)
    centroids, assignment = fit_clusters(features, 8, seed=0)
    assert set(assignment) == set(range(len(centroids)))
    for index in range(len(centroids)):
        assert (assignment == index).any()
    np.testing.assert_allclose(centroids[assignment], features, atol=1e-2)


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(3), np.full((5, 2), np.nan)])
def test_unusable_features_are_refused(bad: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="clustering needs"):
        fit_clusters(bad.astype(np.float32), 2, seed=0)


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="k and points_per_cluster"):
        fit_clusters(np.zeros((5, 2), dtype=np.float32), 0, seed=0)


def test_points_out_of_reach_follow_their_centroid() -> None:
    old = np.array([[0.0, 0.0], [4.0, 4.0], [9.0, 0.0]], dtype=np.float32)
    new = np.array([[5.0, 3.0], [1.0, -1.0]], dtype=np.float32)
    # squared distances: (34, 2), (2, 34), (25, 65)
    np.testing.assert_array_equal(follow_clusters(old, new), [1, 0, 0])
    assert follow_clusters(old[:0], new).shape == (0,)
