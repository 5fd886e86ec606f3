"""Cross-entropy baselines: CE-2 (real, forged) and CE-(N+1) (real, and one class a forgery type).

Both are the baselines of Guo et al., "Controllable Guide-Space for Generalizable Face Forgery Detection", ICCV 2023:
a backbone, mean pooling, a linear classifier. Deviations: the paper knows its N types from the start; here the
classifier gains classes as types are met, and the old classes keep their weights. A type is named by `batch.forgery`
and takes the next free class when it first appears, so that an experience with two forgeries, or joint training, where
all types are there at once, has a class for each. **Reading**: for the (N+1)-way classifier
z = log sum_k exp(l_k) - l_real, so that sigmoid(z) = 1 - softmax(l)_real is the probability of any forgery.
Axes: B faces, C channels, K types.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Learner, Losses, Output, split_decay
from ffd_continual.strategies.learners.trunk import Trunk, TrunkConfig

FREE = -1


@dataclass(frozen=True)
class CEConfig:
    """The paper trains the whole of an EfficientNet-B4: backbone efficientnet_b4, frozen_stages 0."""

    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    classes: str = "two"  # "two": CE-2; "many": CE-(N+1)
    trunk_lr: float = 0.3  # relative to the classifier's learning rate
    dropout: float = 0.0


class TypeHead(nn.Module):
    """Linear logits of real and of K types, each a row of its own; `kinds` (K,) holds the forgery index of a class."""

    def __init__(self, channels: int):
        super().__init__()
        self.real = nn.Linear(channels, 1)
        self.types = nn.ModuleList()
        self.kinds: Tensor
        self.register_buffer("kinds", torch.zeros(0, dtype=torch.int64))

    def grow(self, count: int) -> None:
        """At least `count` classes; the new ones are free."""
        for _ in range(count - len(self.types)):
            self.types.append(nn.Linear(self.real.in_features, 1).to(self.real.weight.device))
            self.kinds = torch.cat([self.kinds, torch.full((1,), FREE, device=self.kinds.device)])

    def assign(self, forgery: Tensor) -> int:
        """Give the types of (B,) forgery indices (0 real) that have no class the free ones; how many are left over."""
        new = [f for f in sorted(set(forgery.tolist())) if f > 0 and not bool((self.kinds == f).any())]
        free = (self.kinds == FREE).nonzero().flatten().tolist()
        for kind, place in zip(new, free, strict=False):
            self.kinds[place] = kind
        return max(0, len(new) - len(free))

    def targets(self, forgery: Tensor) -> Tensor:
        """(B,) forgery indices to classes: 0 real, 1 + k for the type of class k."""
        same = forgery[:, None] == self.kinds[None, :]
        return torch.where(forgery == 0, 0, 1 + same.long().argmax(1))

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C) to logits (B, 1 + K); classes that no type has taken yet are out of the race (-inf)."""
        logits = torch.cat([layer(feature) for layer in (self.real, *self.types)], dim=1)
        taken = F.pad(self.kinds != FREE, (1, 0), value=True)
        return logits.masked_fill(~taken, float("-inf"))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        stored = state_dict.get(f"{prefix}kinds")
        if stored is not None:
            self.grow(len(stored))
        super()._load_from_state_dict(state_dict, prefix, *args)


class ClosedHead(nn.Module):
    """A type head that learns no more: a row for real and one for each class that a type took."""

    weight: Tensor
    bias: Tensor

    def __init__(self, head: TypeHead, names: tuple[str, ...]):
        super().__init__()
        every = [head.real, *head.types]
        taken = [True, *(kind != FREE for kind in head.kinds.tolist())]
        layers = [layer for layer, own in zip(every, taken, strict=True) if own and isinstance(layer, nn.Linear)]
        self.names = names
        self.register_buffer("weight", torch.cat([layer.weight.detach() for layer in layers]))
        self.register_buffer("bias", torch.cat([layer.bias.detach() for layer in layers]))

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C) to logits (B, 1 + K), K the classes taken."""
        return F.linear(feature, self.weight, self.bias)

    def judge(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """z (B,) and the attribution (B, K), None without a class of a type."""
        if not self.names:
            return -logits[:, 0], None
        types = logits[:, 1:]
        return torch.logsumexp(types, dim=1) - logits[:, 0], torch.softmax(types, dim=1)


def any_forgery(logits: Tensor) -> Tensor:
    """(B, 1 + K) class logits to z (B,), the log-odds of "not real"; without any class of a type, -l_real."""
    if not bool(torch.isfinite(logits[:1, 1:]).any()):
        return -logits[:, 0]
    return torch.logsumexp(logits[:, 1:], dim=1) - logits[:, 0]


class CE(Learner):
    """Backbone, mean pooling, softmax classifier of two classes or of one a type."""

    config_type = CEConfig
    met = 0  # `meet` counts the types: it must see them all

    def __init__(self, config: CEConfig):
        super().__init__()
        if config.classes not in ("two", "many"):
            raise FFDError(f"learner.classes must be 'two' (CE-2) or 'many' (CE-(N+1)), not {config.classes!r}.")
        self.config = config
        self.trunk = Trunk(config.trunk)
        self.many = config.classes == "many"
        self.head: nn.Module = TypeHead(self.trunk.channels) if self.many else nn.Linear(self.trunk.channels, 2)

    def begin(self, forgery: str) -> None:
        """A class more, unless earlier experiences brought several types."""
        super().begin(forgery)
        if isinstance(self.head, TypeHead):
            self.head.grow(len(self.growth))

    def meet(self, faces: Iterable[Batch]) -> None:
        """A class for every type that the experience will show; before the optimizer is made."""
        if isinstance(self.head, TypeHead):
            for batch in faces:
                left = self.head.assign(batch.forgery)
                if left:
                    self.head.grow(len(self.head.types) + left)
                    self.head.assign(batch.forgery)

    def frozen(self, images: Tensor) -> Tensor | None:
        """The frozen stages' last map."""
        return self.trunk.flat(images) if len(self.trunk.low) else None

    def frozen_key(self) -> str:
        """The frozen stages' weights, and what is read from them."""
        return self.trunk.key("map")

    def judge(self, frozen: Tensor) -> Output:
        """The rest of `forward`."""
        return self._answer(self.trunk.rest(frozen))[0]

    def forward(self, images: Tensor) -> Output:
        """(B, 3, S, S) to z, the feature "common" (B, C) and, with a class a type, the attribution (B, K)."""
        return self._answer(self.trunk(images))[0]

    def _answer(self, maps: Tensor) -> tuple[Output, Tensor]:
        feature = maps.mean((2, 3))
        logits: Tensor = self.head(F.dropout(feature, self.config.dropout, self.training))
        if isinstance(self.head, ClosedHead):
            z, attribution = self.head.judge(logits)
            return Output(z, {"common": feature}, {}, attribution, None, self.head.names), logits
        if not isinstance(self.head, TypeHead):
            return Output(z=logits[:, 1] - logits[:, 0], features={"common": feature}), logits
        taken = self.head.kinds != FREE
        attribution = torch.softmax(logits[:, 1:][:, taken], dim=1) if bool(taken.any()) else None
        return Output(any_forgery(logits), {"common": feature}, {}, attribution, None, self._names(self.head)), logits

    def _names(self, head: TypeHead) -> tuple[str, ...]:
        return tuple(self._name(int(kind)) for kind in head.kinds[head.kinds != FREE])

    def closed(self) -> Learner:
        """With a head whose classes are those taken, without a branch on them."""
        made = super().closed()
        if isinstance(self.head, TypeHead):
            made.head = ClosedHead(self.head, self._names(self.head))
        return made

    def _name(self, kind: int) -> str:
        """A type's name: forgery indices count the forgeries of the experiences in order, from 1."""
        names = [name.strip() for entry in self.growth for name in entry.split("+")]
        return names[kind - 1] if kind <= len(names) else f"forgery {kind}"

    def step(self, batch: Batch) -> tuple[Output, Losses]:
        """Cross-entropy over the classes."""
        target = batch.target
        if isinstance(self.head, TypeHead):
            if self.head.assign(batch.forgery):
                raise FFDError("a forgery type appeared that the experience's beginning did not show to the learner")
            target = self.head.targets(batch.forgery)
        maps = self.trunk.rest(batch.frozen) if batch.frozen.shape[1] else self.trunk(batch.image)
        out, logits = self._answer(maps)
        return out, {"decision": F.cross_entropy(logits, target)}

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """The pretrained trunk learns at `trunk_lr` times the classifier's rate."""
        trunk = split_decay(self.trunk.trained(), lr * self.config.trunk_lr, weight_decay)
        return [*trunk, *split_decay(self.head.parameters(), lr, weight_decay)]

    def costs(self) -> dict[str, float]:
        """A type adds one row of the classifier."""
        a_type = float(self.trunk.channels + 1) if self.many else 0.0
        return {"parameters": float(sum(p.numel() for p in self.parameters())), "parameters_per_type": a_type}
