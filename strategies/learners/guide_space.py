"""Guide-Space: controllable separation of forgery types. Guo et al., "Controllable Guide-Space for Generalizable Face
Forgery Detection", ICCV 2023.

Features are drawn to guide embeddings (guide_embeddings.py): all forgery types stand far from the real faces and well
apart from one another. Faces with doubtful neighbours weigh more (A-DBM); faces that look alike for other reasons than
their forgery are pushed apart, those that do not are pulled together (decoupling, guide_losses.py), by clusters of a
frozen self-supervised encoder (self_supervised.py).

Deviations: the paper trains all types at once. Here types arrive one after the other (guide_embeddings.py); clusters
are made anew at each experience's start from the faces at hand, and faces no longer at hand follow their old cluster's
centre; M is at most as large as the number of faces met, K shrinks with it. M holds the batches before the current one,
not a face's own feature. **Reading**, as the stored text lost these values: features of 512 (5,120 of them are the
10 MB that the paper names), tau, gamma, the weights of Eq. 9, learning rates; theta 120 degrees by the paper's own
remark that forgeries are orthogonal.
Axes: B faces, D features, M stored features, T forgery types, R rows of the run's face table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.replay.neighbours import FaissNeighbours
from ffd_continual.replay.queues import FeatureQueue
from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Learner, Losses, Output, split_decay
from ffd_continual.strategies.learners.guide_clusters import FaceClusters
from ffd_continual.strategies.learners.guide_embeddings import ClosedGuides, Guides, guide_embeddings
from ffd_continual.strategies.learners.guide_losses import (
    attention_weights,
    confidence,
    draw,
    guide_loss,
    pull_loss,
    push_loss,
    weighted_bce,
)
from ffd_continual.strategies.learners.self_supervised import (
    Encoded,
    EncoderConfig,
    FaceEncoder,
    build_encoder,
    encode_faces,
)
from ffd_continual.strategies.learners.trunk import Standardise, Trunk, TrunkConfig


@dataclass(frozen=True)
class GuideSpaceConfig:
    """The paper's values where known; a weight of 0 switches its part off."""

    trunk: TrunkConfig = field(default_factory=lambda: TrunkConfig(frozen_stages=0))  # paper: EfficientNet-B4
    pooling: str = "mean"  # "mean" of the last map, or "statistics" of the frozen stages (as the plain learner's)
    features: int = 512  # D
    trunk_lr: float = 0.3  # relative to the new layers' learning rate
    dropout: float = 0.0
    mode: str = "simplex"  # "simplex" closed form, "solved" Eq. 1-2 numerically, "orthonormal" for open streams
    reserve: int = 4  # types there is room for (paper: FF++'s 4); 0 with orthonormal: D - 1
    theta: float = 120.0  # degrees between the real embedding and every other
    temperature: float = 0.2  # tau of Eq. 2, 3, 7, 8; this and the next chosen on validation faces of the portraits
    guide_weight: float = 0.3  # lambda 1, Eq. 3
    push_weight: float = 0.1  # lambda 2, Eq. 7
    pull_weight: float = 0.1  # lambda 3, Eq. 8
    queue: int = 5120  # M
    adjust: bool = True  # A-DBM, Eq. 5-6
    adjust_from: float = 10 / 60  # share of an experience's steps before which w = 1 (paper: epoch 10 of 60)
    neighbours: int = 55  # K, at a full queue
    gamma: float = 0.5  # what a neighbour of another forgery type counts against a forged face; a real one counts 1
    clusters: int = 500
    cluster_faces: int = 16  # there are at most n / this many clusters
    samples: int = 10  # features pushed, and features pulled, for a face
    encoder: EncoderConfig = field(default_factory=EncoderConfig)


class GuideSpace(Learner):
    """Backbone, D features on the guide-space's sphere, one logit."""

    config_type = GuideSpaceConfig
    met = 0  # clusters need all faces at hand

    def __init__(self, config: GuideSpaceConfig):
        super().__init__()
        self.still = config.pooling == "statistics"
        if config.pooling not in ("mean", "statistics"):
            raise FFDError(f"learner.pooling must be 'mean' or 'statistics', not {config.pooling!r}.")
        if self.still and config.trunk.frozen_stages == 0:
            raise FFDError("learner.pooling=statistics reads frozen stages: set learner.trunk.frozen_stages.")
        for key in ("queue", "neighbours", "clusters", "cluster_faces", "samples", "temperature"):
            if getattr(config, key) <= 0:
                raise FFDError(f"learner.{key} must be positive; a part is switched off by its weight or `adjust`.")
        self.config = config
        self.trunk = Trunk(config.trunk)
        width = config.features
        self.guides = Guides(guide_embeddings(config.mode, config.reserve, width, config.theta, config.temperature))
        if self.still:
            self.trunk.high = nn.Sequential()
            self.channels = self.trunk.level_channels
            count = 3 * sum(self.channels)
            self.standard = Standardise(count)
            self.embed: nn.Module = nn.Sequential(nn.Linear(count, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        else:
            self.embed = nn.Linear(self.trunk.channels, width)
        self.head = nn.Linear(width, 1)
        self.queue = FeatureQueue(config.queue, width)
        self.faces = FaceClusters()
        # Only an encoder that learns has a state to keep; the others are made again from their weights, and lately, as
        # judging needs none.
        self.masked = build_encoder(config.encoder, config.trunk) if config.encoder.kind == "mim" else None
        self._fixed: tuple[FaceEncoder, ...] = ()

    # What never changes -----------------------------------------------------------------------------------------

    def frozen(self, images: Tensor) -> Tensor | None:
        """What the trunk's frozen stages say, with pooling=statistics."""
        return self.trunk.statistics(images) if self.still else None

    def frozen_key(self) -> str:
        """The trunk's weights."""
        return self.trunk.key("statistics")

    def encoder(self, device: torch.device) -> FaceEncoder:
        """The frozen encoder of the clusters, made when it is first asked for."""
        if self.masked is not None:
            return self.masked
        if not self._fixed:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # random weights, where so configured, are the same each time
                self._fixed = (build_encoder(self.config.encoder, self.config.trunk),)
        return self._fixed[0].to(device)

    @property
    def _decouples(self) -> bool:
        return self.config.push_weight > 0 or self.config.pull_weight > 0

    def meet(self, faces: Iterable[Batch]) -> None:
        """All faces at hand: their types get a place, and their clusters are made."""
        config = self.config
        met = self._encoded(faces)
        self.faces.note(met.row, met.forgery)
        self.guides.meet(met.forgery, met.experience)
        if self._decouples:
            self.faces.make(met, config.clusters, config.cluster_faces)
            kept = self.still and config.encoder.kind == "trunk"
            title = f"{config.trunk.backbone}, frozen stages" if kept else self.encoder(met.row.device).title
            print(f"guide_space: {len(self.faces.centres)} clusters of {len(met.row)} faces by {title}")

    def _encoded(self, faces: Iterable[Batch]) -> Encoded:
        """Rows, forgeries, experiences of all faces, and the features to cluster (none when nothing uses clusters)."""
        config = self.config
        if self._decouples and not (self.still and config.encoder.kind == "trunk"):
            device = self.head.weight.device
            parts = list(encode_faces(self.encoder(device), faces, config.encoder.mim_faces))
            return Encoded(*(torch.cat(column) for column in zip(*parts, strict=True)))
        parts, statistics = [], []
        for batch in faces:
            features = batch.row.new_zeros((len(batch.row), 0), dtype=torch.float32)
            if self.still:
                levels, count = self.seen(batch), 3 * self.channels[-1]
                statistics.append(levels)
                features = F.normalize(levels[:, -count:][:, : self.channels[-1]], dim=1)  # the last level's means
            parts.append(Encoded(batch.row, batch.forgery, batch.experience, features))
        if self.still and not bool(self.standard.met):
            self.standard.meet(torch.cat(statistics))
        return Encoded(*(torch.cat(column) for column in zip(*parts, strict=True)))

    # Judging ----------------------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Output:
        """(B, 3, S, S) to logit, the feature "common" (B, D) of unit length, attribution and novelty."""
        if self.still:
            return self.judge(self.trunk.statistics(images))
        return self._answer(self.trunk(images).mean((2, 3)))

    def judge(self, frozen: Tensor) -> Output:
        """The same from what `frozen` gave."""
        return self._answer(self.standard(frozen))

    def _answer(self, pooled: Tensor) -> Output:
        made = self.embed(F.dropout(pooled, self.config.dropout, self.training))
        feature = F.normalize(made.float(), dim=1)
        z = self.head(made).squeeze(1)
        used = self.guides.in_use()
        if len(used) == 1:
            return Output(z, {"common": feature})
        near = feature.detach() @ self.guides.embeddings[used].T
        attribution = torch.softmax(near[:, 1:] / self.config.temperature, dim=1)
        return Output(z, {"common": feature}, {}, attribution, 1.0 - near.amax(1), self.guides.names(self.growth))

    def closed(self) -> Learner:
        """With the guides in use only, which no longer depend on what was matched."""
        made = super().closed()
        made.guides = ClosedGuides(self.guides, self.growth)
        return made

    # Learning ---------------------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> tuple[Output, Losses]:
        """Eq. 9: L_bce + l1 L_guide + l2 L_push + l3 L_pull; a part whose weight is 0 is not computed."""
        out = self.judge(self.seen(batch)) if self.still else self(batch.image)
        with torch.autocast(batch.row.device.type, enabled=False):
            return out, self._losses(out.features["common"], out.z.float(), batch)

    def _recent(self) -> tuple[Tensor, Tensor]:
        """M: the newest features (copies, as the queue is written before the backward pass) and their rows."""
        features, rows = self.queue.filled()
        age = (self.queue.head - 1 - torch.arange(len(rows), device=rows.device)) % self.queue.capacity
        chosen = age < min(self.config.queue, len(self.faces))
        return features[chosen], rows[chosen]

    def _weights(self, feature: Tensor, batch: Batch, stored: Tensor, rows: Tensor) -> Tensor:
        """A-DBM: w (B,), all 1 before its time and while nothing is stored."""
        config = self.config
        if not config.adjust or self.progress < config.adjust_from or not len(stored):
            return torch.ones(len(feature), device=feature.device)
        count = min(len(stored), max(1, round(config.neighbours * len(stored) / config.queue)))
        # One more is sought, as a face's own earlier feature says nothing of its neighbourhood.
        similarity, index = FaissNeighbours(stored).search(feature, count + 1)
        found = (index >= 0) & (rows[index] != batch.row[:, None])
        found &= found.cumsum(1) <= count
        kinds = self.faces.domain[rows[index]]
        return attention_weights(
            confidence(similarity.nan_to_num(neginf=0.0), kinds, batch.forgery, found, config.gamma)
        )

    def _losses(self, feature: Tensor, z: Tensor, batch: Batch) -> Losses:
        config, detached = self.config, feature.detach()
        self.faces.note(batch.row, batch.forgery)
        self.guides.meet(batch.forgery, batch.experience)
        self.guides.match(detached, batch.forgery)
        stored, rows = self._recent()
        domain = self.faces.domain[rows]
        foreign = domain != batch.forgery[:, None]
        weights = self._weights(detached, batch, stored, rows)
        losses = {"decision": weighted_bce(z, batch.target, weights)}
        own = self.guides.embeddings[self.guides.rows_of(batch.forgery)]
        if config.guide_weight > 0:
            used = self.guides.in_use()
            place = (used == self.guides.rows_of(batch.forgery)[:, None]).int().argmax(1)
            guides = self.guides.embeddings[used]
            guide = guide_loss(feature, guides, place, stored, foreign, weights, config.temperature)
            losses["guide"] = config.guide_weight * guide
        if self._decouples and len(stored):
            mine, theirs = self.faces.cluster[batch.row][:, None], self.faces.cluster[rows]
            known = (mine >= 0) & (theirs >= 0)
            pushed = draw(known & foreign & (mine == theirs), config.samples)
            pulled = draw(known & ~foreign & (mine != theirs), config.samples)
            if config.push_weight > 0:
                losses["push"] = config.push_weight * push_loss(feature, own, stored, *pushed, config.temperature)
            if config.pull_weight > 0:
                pull = pull_loss(feature, stored, *pulled, foreign, config.temperature)
                losses["pull"] = config.pull_weight * pull
        self.queue.enqueue(detached, batch.row)
        return losses

    def end(self, forgery: str, faces: Iterable[Batch]) -> None:
        """The types of the experiences so far keep their embeddings for good."""
        self.guides.close(len(self.growth))

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """The pretrained trunk learns at `trunk_lr` times the rate of the new layers."""
        new = [*self.embed.parameters(), *self.head.parameters()]
        trunk = split_decay(self.trunk.trained(), lr * self.config.trunk_lr, weight_decay)
        return [*trunk, *split_decay(new, lr, weight_decay)]

    def costs(self) -> dict[str, float]:
        """Parameters that judging needs; a type costs one embedding."""
        spare = sum(p.numel() for p in self.masked.parameters()) if self.masked is not None else 0
        return {
            "parameters": float(sum(p.numel() for p in self.parameters()) - spare),
            "parameters_per_type": 0.0,
            "bytes_per_type": 4.0 * self.config.features,
            "queue_bytes": 4.0 * self.queue.features.numel(),
        }
