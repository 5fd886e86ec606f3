"""Class prototypes: exponential moving averages of unit features, compared by cosine.

Source: the EMA prototypes of dual contrastive learning (DCL, Sun et al., AAAI 2022, Eq. 4-5: P = alpha P +
(1 - alpha) k, alpha 0.9), made growable and allowing several prototypes a class, for attribution and routing over
forgeries that arrive one after another. Axes: B batch, D features, K classes, P prototypes a class.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ffd_continual.replay.clusters import fit_clusters

UNKNOWN = -1.0
"""Similarity to a class without a prototype yet: the least possible cosine, so that it is never the nearest."""


class Prototypes(nn.Module):
    """Named classes with P prototypes each; ids are positions in `names`, in order of arrival.

    Buffers: `vectors` (K, P, D) float32, the moving averages, not normalised (their length tells how concentrated the
    class is); `counts` (K, P) int64, features absorbed, 0 = not set yet; `codes` (K,) int64, checksums of the names,
    so that loading under other names or another order fails instead of attributing to the wrong forgery.
    Growth changes shapes: call `grow` with the saved names before `load_state_dict`.

    Deviations from DCL: features are made unit vectors first; a batch counts as its mean, once, whatever its size; the
    first batch of a class sets its prototype outright, so that no average starts from zero.
    """

    vectors: Tensor
    counts: Tensor
    codes: Tensor

    def __init__(self, dim: int, names: Iterable[str] = (), per_class: int = 1, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        if dim < 1 or per_class < 1:
            raise ValueError(f"dim and per_class must be 1 or more, got {dim} and {per_class}")
        self.momentum = momentum
        self.names: list[str] = []
        self.register_buffer("vectors", torch.zeros(0, per_class, dim))
        self.register_buffer("counts", torch.zeros(0, per_class, dtype=torch.int64))
        self.register_buffer("codes", torch.zeros(0, dtype=torch.int64))
        self.grow(names)

    def __len__(self) -> int:
        return len(self.names)

    def grow(self, names: Iterable[str]) -> list[int]:
        """Add the names that are new, in order, on the device of the others; the ids of all names given."""
        ids = []
        for name in names:
            if name not in self.names:
                self.names.append(name)
                _, per_class, dim = self.vectors.shape
                code = zlib.crc32(name.encode())
                self.vectors = torch.cat([self.vectors, self.vectors.new_zeros(1, per_class, dim)])
                self.counts = torch.cat([self.counts, self.counts.new_zeros(1, per_class)])
                self.codes = torch.cat([self.codes, self.codes.new_full((1,), code)])
            ids.append(self.names.index(name))
        return ids

    def known(self) -> Tensor:
        """Bool (K,): the classes with a prototype."""
        return (self.counts > 0).any(dim=1)

    @torch.no_grad()
    def update(self, features: Tensor, classes: Tensor) -> None:
        """Move each class towards its faces: vector <- momentum * vector + (1 - momentum) * mean unit feature.

        features (B, D), classes (B,) ids. With P > 1 a feature counts for the nearest prototype of its class;
        prototypes not set yet are started from the features farthest from those that are (farthest first).
        IndexError on an id outside 0..K-1, ValueError on a wrong shape.
        """
        if features.ndim != 2 or features.shape[1] != self.vectors.shape[2] or classes.shape != features.shape[:1]:
            raise ValueError(f"need (B, {self.vectors.shape[2]}) and (B,), got {features.shape} and {classes.shape}")
        unit = functional.normalize(features.detach().to(self.vectors), dim=1)
        for index in sorted(set(classes.tolist())):
            if not 0 <= index < len(self):
                raise IndexError(f"class id {index} is unknown; known are 0..{len(self) - 1} ({', '.join(self.names)})")
            mine = unit[(classes == index).to(unit.device)]
            nearest = self._nearest(index, mine)
            for slot in sorted(set(nearest.tolist())):
                taken = mine[nearest == slot]
                mean = taken.mean(dim=0)
                old = self.vectors[index, slot]
                fresh = int(self.counts[index, slot]) == 0
                self.vectors[index, slot] = mean if fresh else self.momentum * old + (1.0 - self.momentum) * mean
                self.counts[index, slot] += len(taken)

    def _nearest(self, index: int, unit: Tensor) -> Tensor:
        """Slot (n,) that each unit feature counts for; slots not set yet take part through a seed feature."""
        centres = functional.normalize(self.vectors[index], dim=1)
        usable = self.counts[index] > 0
        for slot in (~usable).nonzero().flatten().tolist():
            if usable.any():
                cosine = (unit @ centres[usable].T).amax(dim=1)
                seed = int(cosine.argmin())
                # A copy of an existing prototype adds nothing and would split its class by rounding errors.
                if float(cosine[seed]) > 1.0 - 1e-6:
                    break
            else:
                seed = 0
            centres[slot] = unit[seed]
            usable[slot] = True
        return (unit @ centres.T).masked_fill(~usable, -torch.inf).argmax(dim=1)

    @torch.no_grad()
    def refresh(self, name: str, features: Tensor, seed: int = 0) -> None:
        """Replace a class's prototypes by the k-means centres of all its features (n, D), as at an experience's end.

        With P = 1 this is the mean unit feature. Fewer distinct features than P leave the remaining slots unset.
        """
        index = self.grow([name])[0]
        unit = functional.normalize(features.detach().float(), dim=1).cpu()
        centres, assigned = fit_clusters(unit.numpy(), self.vectors.shape[1], seed=seed, points_per_cluster=1)
        self.vectors[index] = 0.0
        self.counts[index] = 0
        self.vectors[index, : len(centres)] = torch.from_numpy(centres).to(self.vectors)
        sizes = torch.bincount(torch.from_numpy(assigned), minlength=len(centres))
        self.counts[index, : len(centres)] = sizes.to(self.counts)

    def similarity(self, features: Tensor) -> Tensor:
        """Cosine (B, K) of each feature (B, D) to the nearest prototype of each class; UNKNOWN where there is none.

        Differentiable in the features; an attribution is its argmax, a novelty score one minus its maximum.
        """
        unit = functional.normalize(features.float(), dim=1)
        centres = functional.normalize(self.vectors, dim=2)
        cosine = torch.einsum("bd,kpd->bkp", unit, centres)
        return cosine.masked_fill((self.counts == 0)[None], UNKNOWN).amax(dim=2)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(prefix + "codes")
        if isinstance(saved, Tensor) and not torch.equal(saved.cpu(), self.codes.cpu()):
            errors: list[str] = args[-1]
            errors.append(
                f"{prefix}codes: the saved prototypes have {len(saved)} classes under other names or in another order "
                f"than {self.names}; call grow(saved names) on a fresh module first"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
