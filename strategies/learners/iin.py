"""IIN: intra-inter network. Zhou et al., "IIN-FFD: Intra-Inter Network for Face Forgery Detection", Tsinghua Science
and Technology 29(6), 2024. Only the abstract is public: it fixes an intra-module trained by supervision for each kind
of forgery (special features), an inter-module trained by self-supervision (common features), their decoupling, and a
forged trace masking module (FTMM) for contrastive learning, all over a stream of forgery types. Layers and losses are
this project's reading (docs/decisions/0003-reading-of-iin.md); no parity with the paper's tables is claimed.

Judging a face needs no forgery name: z = z_c + g * sum_k w_k z_k, where w compares fixed statistics of the face with
the prototypes of each type, and g falls from 1 as the face resembles none of them. Axes: B faces, D features, K types.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.replay.queues import FeatureQueue
from ffd_continual.scenarios.batch import Batch
from ffd_continual.strategies.learner import Learner, Losses, Output, split_decay
from ffd_continual.strategies.learners.adapters import IntraModule
from ffd_continual.strategies.learners.iin_losses import (
    decoupling,
    instance_contrast,
    mask_evidence,
    masked_mean,
    top_share,
    trace_contrast,
)
from ffd_continual.strategies.learners.inter import InterModule, InterOutput, follow, slow_copy
from ffd_continual.strategies.learners.routing import Router, map_statistics
from ffd_continual.strategies.learners.trunk import Trunk, TrunkConfig


@dataclass(frozen=True)
class IINConfig:
    """Each part has a switch; the weights were chosen on validation (docs/decisions/0004-iin-against-replay.md)."""

    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    trunk_lr: float = 0.3  # of the plastic later stages, relative to new layers
    intra: bool = True  # a light module a type
    intra_lr: float = 2.0  # relative to new layers
    intra_start: bool = True  # a new module starts from the one before
    rank: int = 4  # of the intra-modules' updates
    features: int = 64  # D
    inter: bool = True  # self-supervised instance contrast of the common features
    pretext: float = 0.25  # share of the batch's real faces shown self-blended, as forged; 0 switches it off
    decouple: bool = True
    ftmm: bool = True  # evidence map, trace contrast
    routing: bool = True  # off: all intra-modules weigh the same
    queue: int = 1024  # stored features of each class
    momentum: float = 0.97  # of the slow copy of the common path
    slow_judge: bool = True  # the slow copy judges
    temperature: float = 0.1  # of both contrasts
    trace_share: float = 0.25  # q, of the evidence map's locations
    route_temperature: float = 4.0
    gate: float = 1.0  # novelty up to which intra-modules have their full say
    routed: int = 2  # intra-modules run for a face
    contrast_weight: float = 0.1
    decouple_weight: float = 0.1
    rebuild_weight: float = 0.1
    trace_weight: float = 0.1
    mask_weight: float = 1.0


class IIN(Learner):
    """Frozen early stages; a plastic common path (inter); a light module a type on a frozen base (intra)."""

    config_type = IINConfig

    def __init__(self, config: IINConfig):
        super().__init__()
        self.config = config
        trunk = Trunk(config.trunk)
        self.trunk = trunk
        low = trunk.extract(torch.zeros(2, 3, 96, 96))
        share = config.trace_share if config.ftmm else 0.0
        trunk.eval()
        self.base = slow_copy(trunk.high) if config.intra else nn.Identity()
        self.inter = InterModule(trunk.high, low, trunk.channels, config.features, share)
        self.slow = slow_copy(self.inter)
        self.intra = nn.ModuleList()
        self.router = Router(2 * trunk.low_channels)
        self.real_queue = FeatureQueue(config.queue, config.features)
        self.fake_queue = FeatureQueue(config.queue, config.features)
        self.trace_queue = FeatureQueue(config.queue, config.features)
        self.untraced_queue = FeatureQueue(config.queue, config.features)
        self.trace = nn.Linear(self.inter.middle_channels, config.features)
        self.rebuild = nn.Linear(2 * config.features, trunk.channels)
        self.train()

    @property
    def wants(self) -> frozenset[str]:
        """Masks where known; self-blended faces and second views when their parts are on."""
        c = self.config
        chosen = {"mask": c.ftmm, "pseudo": c.pretext > 0, "view2": c.inter}
        return frozenset(name for name, on in chosen.items() if on)

    def train(self, mode: bool = True) -> IIN:
        """Base and slow copy never train; the intra-modules of closed experiences neither."""
        super().train(mode)
        self.base.eval()
        self.slow.eval()
        for module in self.intra[:-1]:
            module.eval()
        return self

    def begin(self, forgery: str) -> None:
        """A type arrives: the modules before are frozen, a new one starts (from the last, if so configured)."""
        super().begin(forgery)
        self.router.grow()
        for module in self.intra:
            module.requires_grad_(False)
        if self.config.intra:
            made = IntraModule(self.base, self.trunk.channels, self.config.features, self.config.rank)
            if self.config.intra_start and len(self.intra):
                made.copy_from(self.intra[-1])  # type: ignore[arg-type]
            self.intra.append(made.to(self.rebuild.weight.device))

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Three rates: plastic trunk stages, heads and projections, the newest intra-module."""
        trunk = list(self.inter.stages.parameters())
        known = {id(p) for p in trunk}
        heads = [p for part in (self.inter, self.trace, self.rebuild) for p in part.parameters() if id(p) not in known]
        groups = split_decay(trunk, lr * self.config.trunk_lr, weight_decay) + split_decay(heads, lr, weight_decay)
        if self.config.intra and len(self.intra):
            groups += split_decay(self.intra[-1].parameters(), lr * self.config.intra_lr, weight_decay)
        return groups

    # Judging ----------------------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Output:
        """(B, 3, S, S) in 0..1 to z, common and special features, trace map, attribution and novelty."""
        low = self.trunk.extract(images)
        inter = self.slow if self.config.slow_judge and not self.training else self.inter
        answer: InterOutput = inter(low)
        features = {"common": answer.common, "z_common": answer.z}
        maps = {"trace": answer.evidence} if self.config.ftmm else {}
        if not self.growth:
            return Output(z=answer.z, features=features, maps=maps)
        weights, novelty = self.router(map_statistics(low), self.config.route_temperature)
        if not self.config.routing:
            weights = torch.full_like(weights, 1.0 / weights.shape[1])
        z = answer.z
        if self.config.intra:
            z_special = self._experts(low, weights)
            gate = torch.exp(-torch.relu(novelty - self.config.gate)) if self.config.routing else 1.0
            z = z + gate * z_special
            features["z_special"] = z_special
        return Output(z, features, maps, weights, novelty, tuple(self.growth))

    @torch.no_grad()
    def judge_low(self, low: Tensor) -> Output:
        """The common path's answer alone, from the frozen stages' map: what a teacher is asked for."""
        answer: InterOutput = (self.slow if self.config.slow_judge else self.inter)(low)
        maps = {"trace": answer.evidence} if self.config.ftmm else {}
        return Output(answer.z, {"common": answer.common, "z_common": answer.z}, maps)

    def _experts(self, low: Tensor, weights: Tensor) -> Tensor:
        """sum_k w_k z_k over the `routed` best of each face, their weights scaled to sum to 1: (B,)."""
        count = min(self.config.routed, len(self.intra)) if self.config.routing else len(self.intra)
        best, which = weights.topk(count, dim=1)
        best = best / best.sum(1, keepdim=True)
        z = torch.zeros(len(low), device=low.device)
        for kind in sorted(set(which.flatten().tolist())):
            face, place = (which == kind).nonzero(as_tuple=True)
            _, logit = self.intra[kind](self.base, low[face])
            z = z.index_add(0, face, best[face, place] * logit)
        return z

    # Learning ---------------------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> tuple[Output, Losses]:
        """One pass; the losses of the parts that are on."""
        config = self.config
        images, target, mask, known = batch.image, batch.target, batch.mask, batch.mask_known
        shown = torch.zeros_like(target, dtype=torch.bool)
        if config.pretext > 0 and batch.pseudo.shape[1]:
            usable = batch.pseudo_known.nonzero().squeeze(1)
            shown[usable[: round(config.pretext * len(usable))]] = True
            images, target = images.clone(), torch.where(shown, 1, target)
            images[shown] = batch.pseudo[shown]
            if mask.shape[1]:
                mask, known = mask.clone(), known | shown
                mask[shown] = batch.pseudo_mask[shown]
        low = self.trunk.extract(images)
        answer: InterOutput = self.inter(low)
        losses = {"common": F.binary_cross_entropy_with_logits(answer.z, target.float())}
        current = (batch.experience == len(self.growth) - 1) & ~shown
        if config.intra and int(current.sum()) > 1:
            special, z_special = self.intra[-1](self.base, low[current])
            losses["intra"] = F.binary_cross_entropy_with_logits(z_special, target[current].float())
            if config.decouple:
                common = answer.common[current]
                rebuilt = self.rebuild(torch.cat([common, special], dim=1))
                losses["decouple"] = config.decouple_weight * decoupling(common, special, target[current])
                losses["rebuild"] = config.rebuild_weight * F.mse_loss(rebuilt, answer.pooled[current].detach())
        if config.ftmm:
            losses |= self._trace_losses(answer, target, mask, known)
        if config.inter and batch.view2.shape[1]:
            # A self-blended face has no second view of its own: it takes no part here.
            losses["contrast"] = config.contrast_weight * self._contrast(answer, batch, ~shown)
        follow(self.slow, self.inter, config.momentum)
        features = {"common": answer.common, "z_common": answer.z}
        return Output(answer.z, features, {"trace": answer.evidence, "low": low}), losses

    def _contrast(self, answer: InterOutput, batch: Batch, keep: Tensor) -> Tensor:
        """DCL's inter-instance contrast: negatives are the stored keys of the other class."""
        with torch.no_grad():
            key = F.normalize(self.slow(self.trunk.extract(batch.view2[keep])).common, dim=1)
        query, target = F.normalize(answer.common[keep], dim=1), batch.target[keep]
        loss = query.sum() * 0.0
        for label, others in ((0, self.fake_queue), (1, self.real_queue)):
            part = target == label
            if bool(part.any()) and len(others):
                contrast = instance_contrast(
                    query[part], key[part], others.filled()[0].clone(), self.config.temperature
                )
                loss = loss + contrast * part.float().mean()
        rows = batch.row[keep]
        self.real_queue.enqueue(key[target == 0], rows[target == 0])
        self.fake_queue.enqueue(key[target == 1], rows[target == 1])
        return loss

    def _trace_losses(self, answer: InterOutput, target: Tensor, mask: Tensor, known: Tensor) -> Losses:
        """FTMM: the evidence against the mask, and the contrast of traces with what is left without them."""
        config = self.config
        losses: Losses = {}
        if mask.shape[1]:
            losses["mask"] = config.mask_weight * mask_evidence(answer.evidence, mask, known)
        where = top_share(answer.evidence.detach(), config.trace_share)
        traced = F.normalize(self.trace(masked_mean(answer.middle, where)), dim=1)
        untraced = F.normalize(self.trace(masked_mean(answer.middle, 1.0 - where)), dim=1)
        forged, real = target == 1, target == 0
        if bool(forged.any()) and bool(real.any()):
            anchor = traced[forged]
            positives = torch.cat([anchor, self.trace_queue.filled()[0].clone()])
            same = torch.zeros(len(anchor), len(positives), dtype=torch.bool, device=anchor.device)
            same.fill_diagonal_(True)
            # A real face has no trace: with or without its top locations it must stay real.
            negatives = torch.cat([traced[real], untraced[real], self.untraced_queue.filled()[0].clone()])
            losses["trace"] = config.trace_weight * trace_contrast(
                anchor, positives, same, negatives, untraced[forged], config.temperature
            )
            self.trace_queue.enqueue(anchor.detach())
            self.untraced_queue.enqueue(traced[real].detach())
        return losses

    def end(self, forgery: str, faces: Iterable[Batch]) -> None:
        """Prototypes of the type from its training faces, in the fixed routing space."""
        kind = len(self.growth) - 1
        features, labels = [], []
        for batch in faces:
            member = batch.experience == kind
            features.append(map_statistics(self.trunk.extract(batch.image[member])))
            labels.append(batch.target[member])
        self.router.learn(kind, torch.cat(features), torch.cat(labels))

    def costs(self) -> dict[str, float]:
        """One type's module, its statistics and prototypes, against the encoder."""
        encoder = sum(p.numel() for p in self.trunk.low.parameters()) + sum(p.numel() for p in self.base.parameters())
        a_type = sum(p.numel() for p in self.intra[-1].parameters()) if len(self.intra) else 0
        statistics = sum(b.numel() for b in self.intra[-1].buffers()) if len(self.intra) else 0
        prototypes = 2 * self.router.means.shape[-1] + 1
        return {
            "parameters": float(sum(p.numel() for p in self.parameters())),
            "encoder_parameters": float(encoder),
            "parameters_per_type": float(a_type),
            "bytes_per_type": 4.0 * (a_type + statistics + prototypes),
        }
