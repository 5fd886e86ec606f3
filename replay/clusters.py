"""Clusters of features by FAISS k-means, for the decoupling losses of Guide-Space (Guo et al., ICCV 2023, Eq. 7-8).

The paper clusters all images once into 500 clusters; in a stream the number must follow what has been seen so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import faiss
import numpy as np
from numpy.typing import NDArray


@contextmanager
def one_faiss_thread() -> Iterator[None]:
    """Run FAISS on one thread inside, and restore its thread count after.

    Threads change the order of floating-point sums (k-means) and of insertions (HNSW), hence results. The setting is
    FAISS's own OpenMP pool of the calling process and does not touch torch's; do not enter from two threads at once.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def fit_clusters(
    features: NDArray[np.float32],
    k: int,
    seed: int,
    iterations: int = 25,
    points_per_cluster: int = 4,
    restarts: int = 3,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """K-means: features (n, D) -> centroids (k', D) float32 and assignment (n,) int64 in 0..k'-1.

    k' = min(k, n // points_per_cluster), at least 1, less the clusters that end empty (many equal features): every
    cluster returned has a member, and each point belongs to its nearest centroid (squared L2; on unit features
    the same order as cosine). The same features and seed give the same bits. ValueError on no point, k < 1 or a NaN.
    """
    points = np.ascontiguousarray(features, dtype=np.float32)
    if points.ndim != 2 or len(points) == 0:
        raise ValueError(f"clustering needs features (n, D) with n of 1 or more, got {points.shape}")
    if k < 1 or points_per_cluster < 1:
        raise ValueError(f"k and points_per_cluster must be 1 or more, got {k} and {points_per_cluster}")
    if not np.isfinite(points).all():
        raise ValueError("clustering needs finite features; some are NaN or infinite")
    count = max(1, min(k, len(points) // points_per_cluster))
    with one_faiss_thread():
        kmeans = faiss.Kmeans(
            points.shape[1],
            count,
            niter=iterations,
            nredo=restarts,  # k-means from random points meets poor optima; the best of a few starts is kept
            seed=seed % 2**31,  # FAISS holds the seed as a C int
            min_points_per_centroid=1,  # `count` already scales; without this FAISS warns below 39 points a cluster
            max_points_per_centroid=len(points),  # never train on a subsample
        )
        kmeans.train(points)
        centroids = np.asarray(kmeans.centroids, dtype=np.float32)
        assignment = _assign(points, centroids)
        members = np.bincount(assignment, minlength=count)
        if (members == 0).any():
            centroids = np.ascontiguousarray(centroids[members > 0])
            assignment = _assign(points, centroids)
    return centroids, assignment


def follow_clusters(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.int64]:
    """Where points that are no longer at hand go when clusters are made anew: the nearest new centroid of each old one.

    old (k, D), new (k', D) with k' of 1 or more -> (k,) int64.
    """
    if len(old) == 0:
        return np.zeros(0, np.int64)
    with one_faiss_thread():
        return _assign(np.ascontiguousarray(old, dtype=np.float32), np.ascontiguousarray(new, dtype=np.float32))


def _assign(points: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(centroids)
    _, nearest = index.search(points, 1)
    return np.asarray(nearest[:, 0], dtype=np.int64)
