"""IIN: intra-inter network. Zhou et al., "IIN-FFD: Intra-Inter Network for Face Forgery Detection", Tsinghua Science
and Technology 29(6), 2024. Only the abstract is public: it fixes an intra-module trained by supervision for each kind
of forgery (special features), an inter-module trained by self-supervision (common features), their decoupling, and a
forged trace masking module (FTMM) for contrastive learning, all over a stream of forgery types. Layers and losses are
this project's reading (docs/decisions/0003-reading-of-iin.md); no parity with the paper's tables is claimed.

Modules of both kinds are the pretrained stages behind the frozen ones, trained on: forgeries leave their traces in the
middle of an ImageNet network, and what is read there must be allowed to change. Judging a face needs no forgery name:
a mixture of experts answers, p = c sigmoid(z_c) + (1 - c) p_k, where p_k adds up the odds of the types' modules, each
capped, under weights w (`odds_mixture`). w, the chance of each type, compares fixed statistics of the face with
prototypes. Novelty, how little the face resembles any, is told and decides nothing.
Axes: B faces, F frozen statistics, C channels of the frozen map and H, W its size, D features, K types.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.replay.queues import FeatureQueue
from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Learner, Losses, Output, split_decay
from ffd_continual.strategies.learners.iin_losses import (
    decoupling,
    instance_contrast,
    mixture,
    odds_mixture,
)
from ffd_continual.strategies.learners.inter import InterModule, InterOutput, IntraModule, follow, slow_copy
from ffd_continual.strategies.learners.local_evidence import mixed_evidence
from ffd_continual.strategies.learners.routing import Router
from ffd_continual.strategies.learners.trace_masking import TraceMasking
from ffd_continual.strategies.learners.trunk import Standardise, Trunk, TrunkConfig, level_statistics


@dataclass(frozen=True)
class IINConfig:
    """Each part has a switch; docs/decisions/0004-iin-against-replay.md tells how the values were chosen."""

    trunk: TrunkConfig = field(default_factory=lambda: TrunkConfig(frozen_stages=4, stages=5))
    local: int = 64  # features of a location, from which the evidence map is read
    dropout: float = 0.2
    intra: bool = True  # a module a type
    intra_start: bool = False  # a new module starts from the one before
    inter: bool = True  # self-supervised instance contrast of the common features
    pretext: float = 0.25  # share of the batch's real faces shown self-blended, as forged; 0 switches it off
    decouple: bool = True
    ftmm: bool = True  # evidence map in the common logit, mask supervision, trace contrast
    routing: bool = True  # off: all intra-modules weigh the same, whatever the face
    lapse: float = 0.1  # a module is taken to err in this share of cases, so its odds end at 1 / lapse
    common_weight: float = 0.25  # c, the common path's say
    queue: int = 1024  # stored features of each class
    momentum: float = 0.97  # of the slow copy of the common path
    slow_judge: bool = True  # the slow copy judges
    temperature: float = 0.1  # of both contrasts
    trace_share: float = 0.25  # q, of the evidence map's locations
    route_temperature: float = 4.0
    contrast_weight: float = 0.1
    decouple_weight: float = 0.1
    rebuild_weight: float = 0.1
    trace_weight: float = 0.1
    mask_weight: float = 1.0


class IIN(Learner):
    """Frozen stages; a plastic common path (inter); a stage a type, closed when its experience ends (intra)."""

    config_type = IINConfig

    def __init__(self, config: IINConfig):
        super().__init__()
        if config.trunk.frozen_stages < 3:
            raise FFDError("learner.trunk.frozen_stages: iin reads at least three frozen stages of its trunk.")
        if not config.lapse > 0:
            raise FFDError(f"learner.lapse: {config.lapse:g} is not above 0: no module is always right.")
        self.config = config
        self.trunk = Trunk(config.trunk)
        self.trunk.high.requires_grad_(False)  # never run: the modules start from it
        self.channels = self.trunk.level_channels
        self.statistics, features = 3 * sum(self.channels), self.trunk.channels
        self.route_features = 3 * sum(self.channels[:2])
        share = config.trace_share if config.ftmm else 0.0
        self.standard = Standardise(self.statistics)
        low = self.trunk.low_channels
        self.inter = InterModule(self.trunk.high, low, features, config.local, config.dropout, share)
        self.slow = slow_copy(self.inter)
        self.intra = nn.ModuleList()
        self.router = Router(self.route_features)
        weights = config.trace_weight, config.mask_weight
        self.ftmm = TraceMasking(config.local, config.queue, config.trace_share, config.temperature, *weights)
        self.rebuild = nn.Linear(2 * features, self.statistics)
        self.real_queue, self.fake_queue = (FeatureQueue(config.queue, features) for _ in range(2))
        self.train()

    @property
    def wants(self) -> frozenset[str]:
        """Masks where known; self-blended faces and second views when their parts are on."""
        c = self.config
        chosen = {"mask": c.ftmm, "pseudo": c.pretext > 0, "view2": c.inter}
        return frozenset(name for name, on in chosen.items() if on)

    def train(self, mode: bool = True) -> IIN:
        """The slow copy never trains; the modules' start and the intra-modules of closed experiences neither."""
        super().train(mode)
        self.trunk.high.eval()
        self.slow.eval()
        for module in self.intra[:-1]:
            module.eval()
        return self

    def begin(self, forgery: str) -> None:
        """A type arrives: the modules before are frozen, a new one starts (from the last, if so configured)."""
        super().begin(forgery)
        self.router.grow()
        self.intra.requires_grad_(False)
        if self.config.intra:
            made = IntraModule(self.trunk.high, self.trunk.low_channels, self.trunk.channels, self.config.dropout)
            if self.config.intra_start and len(self.intra):
                made.copy_from(self.intra[-1])  # type: ignore[arg-type]
            self.intra.append(made.to(self.rebuild.weight.device))

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """The common path, the projections, and the newest intra-module, all at the same rate."""
        parts = [self.inter, self.ftmm, self.rebuild, *self.intra[-1:]]
        return split_decay([p for part in parts for p in part.parameters()], lr, weight_decay)

    def settled(self) -> Sequence[nn.Module]:
        """All intra-modules but the newest: a teacher need not copy them, however many there are."""
        return list(self.intra[:-1])

    # What never changes -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def frozen(self, images: Tensor) -> Tensor:
        """What the frozen stages say: statistics of their levels (B, F), then their last map, flattened."""
        levels = self.trunk.levels(images)
        return torch.cat([level_statistics(levels), levels[-1].flatten(1)], dim=1)

    def frozen_key(self) -> str:
        """The frozen stages' weights, and what is read from them."""
        return self.trunk.key("statistics-map")

    def _split(self, frozen: Tensor) -> tuple[Tensor, Tensor]:
        """`frozen` as standardised statistics (B, F) and the last map (B, C, H, W)."""
        low = self.trunk.unflat(frozen[:, self.statistics :])
        return self.standard(frozen[:, : self.statistics]), low

    def meet(self, faces: Iterable[Batch]) -> None:
        """The first faces ever met give the scale of the statistics."""
        if not bool(self.standard.met):
            self.standard.meet(torch.cat([self.seen(batch)[:, : self.statistics] for batch in faces]))

    # Judging ----------------------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Output:
        """(B, 3, S, S) in 0..1 to z, common features, trace map, attribution and novelty."""
        return self.judge(self.frozen(images))

    def judge(self, frozen: Tensor) -> Output:
        """The same from what `frozen` gave."""
        out = self.judge_common(frozen)
        if not self.growth:
            return out
        statistics, low = self._split(frozen)
        log_weights, novelty = self.router(statistics[:, : self.route_features], self.config.route_temperature)
        even = torch.full_like(log_weights, -math.log(log_weights.shape[1]))
        prior = log_weights if self.config.routing else even
        z, attribution = out.z, prior.exp()
        if self.config.intra:
            each, evidence = self.special(low)
            out.features["z_special"], attribution = odds_mixture(each, prior, self.config.lapse)
            if self.config.ftmm:
                out.maps["trace"] = mixed_evidence(evidence, attribution, out.maps["trace"])
            say = torch.tensor([self.config.common_weight, 1.0 - self.config.common_weight], device=z.device).log()
            z = mixture(torch.stack([out.z, out.features["z_special"]], dim=1), say)[0]
        return Output(z, out.features, out.maps, attribution, novelty, tuple(self.growth))

    def special(self, low: Tensor) -> tuple[Tensor, Tensor]:
        """What each intra-module says of frozen maps: logits (B, K) and evidence (B, K, H, W); `answers`, if there are
        any, speak for them."""
        known = self.answers
        said = [
            module.say(low) if known is None else known.said(module, low)  # type: ignore[operator]
            for module in self.intra
        ]
        rows = torch.stack(said, dim=1)
        return rows[:, :, 0], rows[:, :, 1:].reshape(*rows.shape[:2], low.shape[-2], low.shape[-1])

    def judge_common(self, frozen: Tensor) -> Output:
        """The common path's answer alone: what a teacher is asked for."""
        inter = self.slow if self.config.slow_judge and not self.training else self.inter
        answer: InterOutput = inter(self._split(frozen)[1])
        maps = {"trace": answer.evidence} if self.config.ftmm else {}
        return Output(answer.z, {"common": answer.common, "z_common": answer.z}, maps)

    # Learning ---------------------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> tuple[Output, Losses]:
        """One pass; the losses of the parts that are on."""
        config = self.config
        batch, shown = batch.with_pseudo(config.pretext)
        frozen, target = self.seen(batch), batch.target
        statistics, low = self._split(frozen)
        answer: InterOutput = self.inter(low)
        losses = {"common": F.binary_cross_entropy_with_logits(answer.z, target.float())}
        current = (batch.experience == len(self.growth) - 1) & ~shown
        if config.intra and int(current.sum()) > 1:
            special, z_special, _ = self.intra[-1](low[current])
            losses["intra"] = F.binary_cross_entropy_with_logits(z_special, target[current].float())
            if config.decouple:
                common = answer.common[current]
                rebuilt = self.rebuild(torch.cat([common, special], dim=1))
                losses["decouple"] = config.decouple_weight * decoupling(common, special, target[current])
                losses["rebuild"] = config.rebuild_weight * F.mse_loss(rebuilt, statistics[current])
        if config.ftmm:
            losses |= self.ftmm.losses(answer, batch)
        if config.inter and (batch.view2.shape[1] or batch.frozen2.shape[1]):
            # A self-blended face has no second view of its own: it takes no part here.
            losses["contrast"] = config.contrast_weight * self._contrast(answer, batch, ~shown)
        follow(self.slow, self.inter, config.momentum)
        features = {"common": answer.common, "z_common": answer.z, "frozen": frozen}
        maps_out = {"trace": answer.evidence} if config.ftmm else {}
        return Output(answer.z, features, maps_out), losses

    def _contrast(self, answer: InterOutput, batch: Batch, keep: Tensor) -> Tensor:
        """DCL's inter-instance contrast: negatives are the stored keys of the other class."""
        with torch.no_grad():
            second = batch.frozen2[keep] if batch.frozen2.shape[1] else self.frozen(batch.view2[keep])
            key = F.normalize(self.slow(self._split(second)[1]).common, dim=1)
        query, target = F.normalize(answer.common[keep], dim=1), batch.target[keep]
        loss = query.sum() * 0.0
        for label, others in ((0, self.fake_queue), (1, self.real_queue)):
            part = target == label
            if bool(part.any()) and len(others):
                negatives = others.filled()[0].clone()
                contrast = instance_contrast(query[part], key[part], negatives, self.config.temperature)
                loss = loss + contrast * part.float().mean()
        rows = batch.row[keep]
        self.real_queue.enqueue(key[target == 0], rows[target == 0])
        self.fake_queue.enqueue(key[target == 1], rows[target == 1])
        return loss

    def end(self, forgery: str, faces: Iterable[Batch]) -> None:
        """Prototypes of the type from its training faces, in the fixed routing space; where its masks lie."""
        kind = len(self.growth) - 1
        newest = cast(IntraModule, self.intra[-1]) if self.config.intra and self.config.ftmm else None
        sums = newest.sums() if newest is not None else None
        features, labels = [], []
        for batch in faces:
            member = batch.experience == kind
            statistics, low = self._split(self.seen(batch)[member])
            features.append(statistics[:, : self.route_features])
            labels.append(batch.target[member])
            if newest is not None and sums is not None and batch.mask.shape[1]:
                told = batch.mask_known[member] | (labels[-1] == 0)
                sums.add(newest.locations(low[told]), batch.mask[member][told])
        self.router.learn(kind, torch.cat(features), torch.cat(labels))
        if newest is not None and sums is not None:
            newest.evidence.learn(sums)

    def closed(self) -> Learner:
        """With a router of constants."""
        made = super().closed()
        made.router = self.router.closed()
        return made

    def costs(self) -> dict[str, float]:
        """One type's module (its bytes with normalisation and evidence) and prototypes, against the encoder."""
        newest = self.intra[-1] if len(self.intra) else nn.Module()
        a_type = sum(p.numel() for p in newest.parameters())
        module = sum(t.numel() * t.element_size() for t in newest.state_dict().values())
        prototypes = 2 * self.router.means.shape[-1] + 1
        return {
            "parameters": float(sum(p.numel() for p in self.parameters())),
            "encoder_parameters": float(sum(p.numel() for p in self.trunk.low.parameters())),
            "parameters_per_type": float(a_type),
            "bytes_per_type": float(module + 4 * prototypes),
        }
