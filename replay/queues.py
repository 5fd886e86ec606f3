"""Feature queues: the ring of recent keys that contrastive losses take their negatives from.

Source: the queue of MoCo (He et al., CVPR 2020), kept one a class as in dual contrastive learning (DCL, Sun et al.,
AAAI 2022), with its hard-sample admission (Eq. 4-6). Axes: B batch, D features, C capacity, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ffd_continual.replay.prototypes import Prototypes


class FeatureQueue(nn.Module):
    """Ring of the last C admitted features and their manifest rows; all its state are buffers, so checkpoints carry it.

    Buffers: `features` (C, D) float32; `rows` (C,) int64, -1 where empty; `count` filled slots; `head` the slot written
    next; `offered` and `admitted` lifetime totals (a queue that admits next to nothing starves the loss: log the rate).

    Writes happen in place. A loss that has multiplied with `filled()` needs those values in its backward pass, so
    enqueue after `backward()`, or multiply with a clone; otherwise autograd reports a modified tensor.
    """

    features: Tensor
    rows: Tensor
    count: Tensor
    head: Tensor
    offered: Tensor
    admitted: Tensor

    def __init__(self, capacity: int, dim: int) -> None:
        super().__init__()
        if capacity < 1 or dim < 1:
            raise ValueError(f"a queue needs capacity and dim of 1 or more, got {capacity} and {dim}")
        self.register_buffer("features", torch.zeros(capacity, dim))
        self.register_buffer("rows", torch.full((capacity,), -1, dtype=torch.int64))
        for name in ("count", "head", "offered", "admitted"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return int(self.count)

    @property
    def capacity(self) -> int:
        """C, the number of slots."""
        return self.features.shape[0]

    @torch.no_grad()
    def enqueue(self, features: Tensor, rows: Tensor | None = None, admit: Tensor | None = None) -> None:
        """Write a batch over the oldest slots, in batch order; O(B), independent of C.

        features (B, D) any float type, stored as float32 without gradient; rows (B,) integers, -1 when None; admit (B,)
        bool, all when None. Of more admitted features than slots the last C stay. ValueError on a wrong shape.
        """
        if features.ndim != 2 or features.shape[1] != self.features.shape[1]:
            raise ValueError(f"features must be (B, {self.features.shape[1]}), got {tuple(features.shape)}")
        batch = features.shape[0]
        if rows is None:
            rows = torch.full((batch,), -1, dtype=torch.int64)
        for name, vector in (("rows", rows), ("admit", admit)):
            if vector is not None and vector.shape != (batch,):
                raise ValueError(f"{name} must be ({batch},), got {tuple(vector.shape)}")
        features = features.detach().to(self.features)
        rows = rows.to(self.rows)
        if admit is not None:
            chosen = admit.to(device=self.features.device, dtype=torch.bool)
            features, rows = features[chosen], rows[chosen]
        taken = features.shape[0]
        self.offered += batch
        self.admitted += taken
        # Slots move on by all admitted features even when only the last C are written, so that a batch larger than
        # the ring leaves it as feeding the same features one by one would.
        kept = min(taken, self.capacity)
        steps = torch.arange(taken - kept, taken, device=self.features.device)
        slots = (self.head + steps) % self.capacity
        self.features[slots] = features[taken - kept :]
        self.rows[slots] = rows[taken - kept :]
        self.head.copy_((self.head + taken) % self.capacity)
        self.count.copy_((self.count + taken).clamp(max=self.capacity))

    def filled(self) -> tuple[Tensor, Tensor]:
        """Views of the filled slots, in slot order and not by age: features (n, D), rows (n,)."""
        filled = len(self)
        return self.features[:filled], self.rows[:filled]

    def admission_rate(self) -> float:
        """Share of all features offered so far that entered; 1.0 before the first."""
        offered = int(self.offered)
        return int(self.admitted) / offered if offered else 1.0


class AdmissionRule(Protocol):
    """Decides which keys may enter the queue of their own class."""

    def __call__(self, keys: Tensor, classes: Tensor, prototypes: Prototypes) -> Tensor:
        """keys (B, D) and their class ids (B,) -> bool (B,), given one prototype (or more) a class."""
        ...


@dataclass(frozen=True)
class AdmitAll:
    """Every key enters: the plain queue."""

    def __call__(self, keys: Tensor, classes: Tensor, prototypes: Prototypes) -> Tensor:
        """All True (B,)."""
        return torch.ones(len(keys), dtype=torch.bool, device=keys.device)


@dataclass(frozen=True)
class HardSample:
    """DCL Eq. 6: a key enters when its cosine to the *other* class's prototype exceeds theta (paper: 0.5).

    With more than two classes the nearest other prototype counts. Deviation: while no other class has a prototype
    yet (the first step, or a batch of one class only) everything enters, as there is nothing to be hard against.
    """

    theta: float = 0.5

    def __call__(self, keys: Tensor, classes: Tensor, prototypes: Prototypes) -> Tensor:
        """Bool (B,)."""
        cosine = prototypes.similarity(keys)
        own = functional.one_hot(classes.to(cosine.device), cosine.shape[1]).bool()
        rival = prototypes.known()[None, :] & ~own
        nearest = cosine.masked_fill(~rival, -torch.inf).amax(dim=1)
        return (nearest > self.theta) | ~rival.any(dim=1)


class ClassQueues(nn.Module):
    """One queue a class, and the class prototypes that the admission rule compares with.

    The loss of a face takes the queue of the other class as negatives (DCL Eq. 3: K_q^- = M_fake for a real query).
    `momentum` is DCL's alpha (paper: 0.9; 30,000 slots a queue).
    """

    def __init__(
        self,
        capacity: int,
        dim: int,
        classes: Sequence[str] = ("real", "forged"),
        rule: AdmissionRule | None = None,
        momentum: float = 0.9,
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.rule: AdmissionRule = AdmitAll() if rule is None else rule
        self.prototypes = Prototypes(dim, self.classes, momentum=momentum)
        self.queues = nn.ModuleList(FeatureQueue(capacity, dim) for _ in self.classes)

    def __getitem__(self, index: int) -> FeatureQueue:
        queue = self.queues[index]
        assert isinstance(queue, FeatureQueue)
        return queue

    def __len__(self) -> int:
        return len(self.classes)

    @torch.no_grad()
    def enqueue(self, keys: Tensor, classes: Tensor, rows: Tensor | None = None) -> Tensor:
        """Update the prototypes with the keys (Eq. 4-5), then admit (Eq. 6); returns the admitted ones, bool (B,).

        keys (B, D), classes (B,) in 0..K-1, rows (B,) manifest rows. IndexError on an unknown class id.
        """
        classes = classes.to(keys.device)
        self.prototypes.update(keys, classes)
        admit = self.rule(keys, classes, self.prototypes)
        for index in range(len(self)):
            mine = classes == index
            mine_rows = None if rows is None else rows.to(keys.device)[mine]
            self[index].enqueue(keys[mine], mine_rows, admit[mine])
        return admit

    def others(self, index: int) -> tuple[Tensor, Tensor]:
        """Features (n, D) and rows (n,) of every queue but one: the negatives for a face of class `index`.

        With two classes these are views of the ring; with more, concatenated copies.
        """
        parts = [self[other].filled() for other in range(len(self)) if other != index]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def admission_rates(self) -> dict[str, float]:
        """Lifetime admission rate by class name, to be logged."""
        return {name: self[index].admission_rate() for index, name in enumerate(self.classes)}
