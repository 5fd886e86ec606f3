"""Nearest neighbours over a feature queue or a memory: exact by a matrix product, or through FAISS.

Used by Guide-Space's A-DBM (Guo et al., ICCV 2023, Eq. 5-6, K = 55 of 5,120), attribution and discovery.
Axes: Q queries, N vectors, D features, K neighbours.

Which search for which size (`build_neighbours`), measured on one core with clustered unit features, D = 128, K = 10:

| N | kind | build | a query | recall@10 |
|---|---|---|---|---|
| below 10,000 | matrix product | none | 0.1 ms at 10,000 | exact |
| below 100,000 | FAISS Flat | a copy | 3.4 ms at 100,000 | exact |
| from 100,000 | FAISS IVF, 4 sqrt(N) lists, 1 in 40 probed | 6 s | 0.16 ms | 0.9998 |
| never by size | FAISS HNSW, 32 links, efSearch 64 | 21 s | 0.19 ms | 0.9998 |

HNSW is there to be asked for: it needs no training and no tuned probe count, but builds slower, and an index is built
anew at every start, as FAISS objects are never saved. IVF and HNSW are for prediction and discovery; training searches
exactly, so that a resumed run meets the same neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

import faiss
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ffd_continual.replay.clusters import one_faiss_thread
from ffd_continual.replay.queues import FeatureQueue

EXACT_BELOW = 10_000
FLAT_BELOW = 100_000
QUERY_BATCH = 64


class Metric(Enum):
    """What a similarity is: COSINE, or L2 as the *negative squared* distance, so that greater is always nearer."""

    COSINE = "cosine"
    L2 = "l2"


class Kind(Enum):
    """How to search: see the table of this module."""

    EXACT = "exact"
    FLAT = "flat"
    IVF = "ivf"
    HNSW = "hnsw"


class NeighbourIndex(Protocol):
    """Finds the K nearest stored vectors of each query."""

    def __len__(self) -> int:
        """N."""
        ...

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """queries (Q, D) -> similarity (Q, k) float32, falling along k, and index (Q, k) int64, on the queries' device.

        Where fewer than k vectors are found, the index is -1 and the similarity -inf.
        """
        ...


def exact_search(
    queries: Tensor, vectors: Tensor, k: int, metric: Metric = Metric.COSINE, batch: int = QUERY_BATCH
) -> tuple[Tensor, Tensor]:
    """Exact neighbours of queries (Q, D) among vectors (N, D) by one matrix product a query batch, on vectors' device.

    Neither side is copied whole or needs to be normalised. See `NeighbourIndex.search` for what comes back.
    """

    def rank(block: Tensor) -> tuple[Tensor, Tensor]:
        block = block.to(vectors)
        if metric is Metric.COSINE:
            similarity = functional.normalize(block, dim=1) @ vectors.T / norms
        else:
            # |q - v|^2 expanded cancels badly when both lie far from the origin, hence the shift by the mean.
            shifted = block - centre
            distance = shifted.square().sum(dim=1, keepdim=True) + lengths - 2.0 * shifted @ (vectors - centre).T
            similarity = -distance.clamp(min=0.0)
        top, index = similarity.topk(min(k, len(vectors)), dim=1)
        return top, index

    if len(vectors):
        norms = vectors.norm(dim=1).clamp(min=1e-12)
        centre = vectors.mean(dim=0)
        lengths = (vectors - centre).square().sum(dim=1)
    return _in_batches(queries, vectors.shape[1], len(vectors), k, batch, rank)


def _in_batches(
    queries: Tensor, dim: int, count: int, k: int, batch: int, rank: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Run `rank` on blocks of exactly `batch` queries, the last one padded, and pad the answers to k columns.

    Matrix products round differently for other shapes, so without a fixed block a query's answer would depend on its
    company in the last bits.
    """
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise ValueError(f"queries must be (Q, {dim}), got {tuple(queries.shape)}")
    if k < 1 or batch < 1:
        raise ValueError(f"k and the query batch must be 1 or more, got {k} and {batch}")
    similarity = torch.full((len(queries), k), -math.inf, device=queries.device)
    index = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    if count == 0:
        return similarity, index
    for start in range(0, len(queries), batch):
        block = queries[start : start + batch].detach().float()
        size = len(block)
        block = torch.cat([block, block.new_zeros(batch - size, dim)])
        top, found = rank(block)
        similarity[start : start + size, : top.shape[1]] = top[:size].to(queries.device)
        index[start : start + size, : top.shape[1]] = found[:size].to(queries.device)
    return similarity, index


class ExactNeighbours:
    """Exact search over vectors (N, D), or live over a `FeatureQueue`: indices are then its slots, and nothing is
    copied or rebuilt when it takes in more."""

    def __init__(self, source: Tensor | FeatureQueue, metric: Metric = Metric.COSINE, batch: int = QUERY_BATCH) -> None:
        self.source = source
        self.metric = metric
        self.batch = batch

    def __len__(self) -> int:
        return len(self.source)

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `NeighbourIndex.search`."""
        vectors = self.source.filled()[0] if isinstance(self.source, FeatureQueue) else self.source.float()
        return exact_search(queries, vectors, k, self.metric, self.batch)


class FaissNeighbours:
    """FAISS Flat, IVF or HNSW over a copy of vectors (N, D); on the GPU where FAISS's GPU build finds one (not HNSW).

    `seed` fixes IVF's k-means. `effort` is the recall knob: IVF's probed lists (default nlist / 40, at least 8),
    HNSW's efSearch (default 64, at least k); Flat ignores it. Built on one thread: HNSW's graph depends on the order
    of insertion. Searches run with FAISS's own threads.
    """

    def __init__(
        self,
        vectors: Tensor,
        metric: Metric = Metric.COSINE,
        kind: Kind = Kind.FLAT,
        seed: int = 0,
        effort: int | None = None,
        batch: int = QUERY_BATCH,
    ) -> None:
        if kind is Kind.EXACT:
            raise ValueError("Kind.EXACT is ExactNeighbours, not a FAISS index")
        self.metric = metric
        self.kind = kind
        self.batch = batch
        self._count, self._dim = vectors.shape
        stored = self._as_numpy(vectors)
        measure = faiss.METRIC_INNER_PRODUCT if metric is Metric.COSINE else faiss.METRIC_L2
        with one_faiss_thread():
            self._index = _empty_index(kind, self._dim, self._count, measure, seed, effort)
            # Held here, as the GPU index points to its resources without owning them.
            self._resources = None if kind is Kind.HNSW else _gpu_resources()
            if self._resources is not None:
                self._index = faiss.index_cpu_to_gpu(self._resources, 0, self._index)
            if self._count:
                self._index.train(stored)  # does nothing but for IVF
                self._index.add(stored)

    def __len__(self) -> int:
        return self._count

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `NeighbourIndex.search`; IVF finds fewer than k where the probed lists hold fewer."""
        return _in_batches(queries, self._dim, self._count, k, self.batch, lambda block: self._rank(block, k))

    def _rank(self, block: Tensor, k: int) -> tuple[Tensor, Tensor]:
        score, index = self._index.search(self._as_numpy(block), min(k, self._count))
        similarity = torch.from_numpy(score if self.metric is Metric.COSINE else -score)
        found = torch.from_numpy(index)
        return similarity.masked_fill(found < 0, -math.inf), found

    def _as_numpy(self, vectors: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
        flat = vectors.detach().float().cpu()
        if self.metric is Metric.COSINE:
            flat = functional.normalize(flat, dim=1)
        return np.ascontiguousarray(flat.numpy())


def _empty_index(kind: Kind, dim: int, count: int, measure: int, seed: int, effort: int | None) -> Any:
    if kind is Kind.HNSW:
        graph = faiss.IndexHNSWFlat(dim, 32, measure)
        graph.hnsw.efConstruction = 80
        graph.hnsw.efSearch = effort or 64
        return graph
    flat = faiss.IndexFlat(dim, measure)
    if kind is Kind.FLAT:
        return flat
    # k-means needs some points a list; a small set gets fewer lists rather than a warning and empty ones.
    lists = max(1, min(int(4 * math.sqrt(count)), count // 39))
    inverted = faiss.IndexIVFFlat(flat, dim, lists, measure)
    inverted.cp.seed = seed % 2**31
    inverted.nprobe = min(lists, effort or max(8, lists // 40))
    return inverted


def _gpu_resources() -> Any:
    """FAISS's scratch memory on the GPU, or None (the CPU build lacks these calls)."""
    if getattr(faiss, "get_num_gpus", int)() == 0 or not hasattr(faiss, "StandardGpuResources"):
        return None
    return faiss.StandardGpuResources()


def build_neighbours(
    vectors: Tensor, metric: Metric = Metric.COSINE, kind: Kind | None = None, seed: int = 0
) -> NeighbourIndex:
    """An index over vectors (N, D): the kind asked for, or by size as in this module's table."""
    if kind is None:
        count = len(vectors)
        kind = Kind.EXACT if count < EXACT_BELOW else Kind.FLAT if count < FLAT_BELOW else Kind.IVF
    if kind is Kind.EXACT:
        return ExactNeighbours(vectors, metric)
    return FaissNeighbours(vectors, metric, kind, seed)


def measure_recall(index: NeighbourIndex, vectors: Tensor, queries: Tensor, k: int, metric: Metric) -> float:
    """Recall@k: the share of each query's k exact neighbours that the index finds, averaged over queries (Q, D).

    With ties at the k-th place an equally near vector counts as a miss.
    """
    _, truth = exact_search(queries, vectors, k, metric)
    _, found = index.search(queries, k)
    hits = (truth[:, :, None] == found[:, None, :]) & (truth >= 0)[:, :, None]
    return float(hits.any(dim=2).sum()) / max(1, int((truth >= 0).sum()))
