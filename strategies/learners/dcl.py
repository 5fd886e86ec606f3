"""DCL: Sun et al., "Dual Contrastive Learning for General Face Forgery Detection", AAAI 2022.

Two data views of a face (dcl_views.py); a query encoder f_q and a key encoder f_k, its moving average; a 1 x 1
convolution makes a map of each, whose locations are the query and the key; contrast between faces against queues of
hard samples of the other class, contrast between the parts of a face (dcl_losses.py); L_all = phi (L_inter + L_intra)
+ (1 - phi) L_ce (Eq. 10). Judging: f_q and fc. The paper gives no localisation, and none is made up here.

Deviations and **readings** beside those of the two files: f_k judges in evaluation mode and follows the normalisation
statistics as it follows the weights (the paper is silent; keys then do not depend on the rest of their batch). f_k
moves at the start of a step, so it follows the optimizer's step before (MoCo's order); with train.accumulate once a
micro-batch. fc reads the mean of f_q's last map. Frozen stages are shared by f_q and f_k. The warm-up
of five epochs is a share of the first experience. With neither contrast L_all is L_ce. In a stream of experiences the
queues, their prototypes and f_k go on; they are buffers and parameters, so checkpoints carry them.
Axes: B faces, S pixels, C channels, H', W' of the last map, D = H' W' query features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.replay.queues import AdmitAll, ClassQueues, HardSample
from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Learner, Losses, Output, split_decay
from ffd_continual.strategies.learners.dcl_losses import (
    balance,
    decision_loss,
    forged_parts,
    inter_loss,
    intra_forged_loss,
    intra_real_loss,
)
from ffd_continual.strategies.learners.dcl_views import (
    DataViewConfig,
    Shown,
    check_data_views,
    draw_data_view,
    plain_view,
    show,
)
from ffd_continual.strategies.learners.inter import follow, slow_copy
from ffd_continual.strategies.learners.trunk import Trunk, TrunkConfig


@dataclass(frozen=True)
class DCLConfig:
    """Defaults are the paper's values (section 4.1), except the trunk; inter, special_views, hard and intra are the
    columns of its Table 5."""

    trunk: TrunkConfig = field(default_factory=lambda: TrunkConfig(frozen_stages=0))  # paper: EfficientNet-B4
    map_stages: int = 0  # stages of the trunk in use, frozen ones included: fewer give a finer map; 0: all (paper)
    trunk_lr: float = 1.0  # relative to the learning rate of fc and the 1 x 1 convolution
    inter: bool = True  # L_inter
    intra: bool = True  # L_intra
    self_pairs: bool = True  # a part's similarity to itself counts in L_intra, as printed; off: it does not
    hard: bool = True  # only hard samples enter the queues; off: all do
    special_views: bool = True  # the four operations; off: the run's common augmentation (`views`), drawn twice
    data_views: DataViewConfig = field(default_factory=DataViewConfig)
    beta: float = 0.99  # of f_k
    tau: float = 0.07
    queue: int = 30000  # keys of each class
    alpha: float = 0.9  # of the prototypes
    theta: float = 0.5  # cosine to the other class's prototype from which a sample is hard
    phi: float = 0.5
    phi_start: float = 0.1  # in the warm-up
    phi_warmup: float = 0.2  # share of the first experience's steps; paper: its first 5 epochs, of a number not given
    forged_share: float = 0.25  # share of forged pixels from which a location is a forged part (no paper value)


class DCL(Learner):
    """Query encoder with classifier, key encoder, class queues."""

    config_type = DCLConfig

    def __init__(self, config: DCLConfig):
        super().__init__()
        for name in ("beta", "alpha", "phi", "phi_start", "phi_warmup"):
            if not 0.0 <= getattr(config, name) <= 1.0:
                raise FFDError(f"learner.{name} must lie in 0..1, not {getattr(config, name)}.")
        if config.tau <= 0 or config.queue < 1:
            raise FFDError(
                f"learner.tau must be above 0 and learner.queue 1 or more, not {config.tau}, {config.queue}."
            )
        check_data_views(config.data_views)
        self.config = config
        self.trunk = Trunk(config.trunk)
        channels = self._cut()
        self.head = nn.Linear(channels, 1)  # fc
        self.squeeze = nn.Conv2d(channels, 1, 1)
        self.key_trunk = slow_copy(self.trunk.high)
        self.key_squeeze = slow_copy(self.squeeze)
        self.queues = nn.ModuleList()  # one ClassQueues, once the size of the maps is known
        self.train()

    def _cut(self) -> int:
        """Leave out the stages beyond `map_stages`; the channels of the last map."""
        frozen, used = self.config.trunk.frozen_stages, self.config.map_stages
        whole = frozen + len(self.trunk.high)
        if used == 0:
            return self.trunk.channels
        if not frozen < used <= whole:
            raise FFDError(
                f"learner.map_stages={used}: {self.config.trunk.backbone} has {whole} stages here, {frozen} of them "
                f"frozen, so {frozen + 1} to {whole} can be used, or 0 for all."
            )
        self.trunk.high = self.trunk.high[: used - frozen]
        self.trunk.channels = self._map(torch.zeros(1, 3, 64, 64)).shape[1]
        return self.trunk.channels

    @torch.no_grad()
    def _map(self, images: Tensor) -> Tensor:
        """f_q's last map without a trace: no statistics move."""
        training = self.trunk.training
        made: Tensor = self.trunk.eval()(images)
        self.trunk.train(training)
        return made

    @property
    def needs(self) -> frozenset[str]:
        """A second draw of the common augmentation, where that makes the views."""
        return frozenset({"view2"}) if self.config.inter and not self.config.special_views else frozenset()

    @property
    def wants(self) -> frozenset[str]:
        """Pairs for mixup and for the mask, the manifest's mask where there is no pair, other frames."""
        c, v = self.config, self.config.data_views
        chosen = {
            "pair": c.intra or (c.special_views and v.mixup > 0),
            "mask": c.intra,
            "other": c.special_views and v.frame_shift > 0,
        }
        return frozenset(name for name, on in chosen.items() if on)

    def train(self, mode: bool = True) -> DCL:
        """The key encoder never trains."""
        super().train(mode)
        self.key_trunk.eval()
        self.key_squeeze.eval()
        return self

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """f_q at `trunk_lr` times the rate of fc and of the query's convolution."""
        trunk = split_decay(self.trunk.trained(), lr * self.config.trunk_lr, weight_decay)
        return [*trunk, *split_decay([*self.head.parameters(), *self.squeeze.parameters()], lr, weight_decay)]

    def meet(self, faces: Iterable[Batch]) -> None:
        """The first faces give the size of the maps, and so of the queues. Raises FFDError on a single location."""
        if len(self.queues) or not self.config.inter:
            return
        height, width = self._map(next(iter(faces)).image[:1]).shape[2:]
        if height * width < 2:
            raise FFDError(
                "learner dcl: the encoder's last map has a single location at this scenario.size, and its contrasts "
                "compare locations. Use larger faces, or fewer stages (learner.map_stages)."
            )
        self.queues.append(self._new_queues(height * width))

    def _new_queues(self, dim: int) -> ClassQueues:
        rule = HardSample(self.config.theta) if self.config.hard else AdmitAll()
        made = ClassQueues(self.config.queue, dim, ("real", "forged"), rule, self.config.alpha)
        return made.to(self.head.weight.device)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}queues.0.queues.0.features")
        if saved is not None and not len(self.queues):
            self.queues.append(self._new_queues(saved.shape[1]))
        super()._load_from_state_dict(state_dict, prefix, *args)

    # Judging ----------------------------------------------------------------------------------------------------

    def _judge(self, maps: Tensor) -> Output:
        feature = maps.mean((2, 3))
        return Output(z=self.head(feature).squeeze(1), features={"common": feature})

    def forward(self, images: Tensor) -> Output:
        """f_q and fc: (B, 3, S, S) in 0..1 to the logit, and the pooled query map as feature "common" (B, C)."""
        return self._judge(self.trunk(images))

    # Learning ---------------------------------------------------------------------------------------------------

    def _views(self, batch: Batch) -> tuple[Shown, Tensor]:
        """v_1(x) with the forged pixels, and the pictures of v_2(x)."""
        config, faces = self.config, len(batch.target)
        if not config.special_views:
            return plain_view(config.data_views, batch), batch.view2 if batch.view2.shape[1] else batch.image
        draws = [draw_data_view(config.data_views, faces) for _ in range(2)]
        return show(config.data_views, draws[0], batch), show(config.data_views, draws[1], batch).image

    @torch.no_grad()
    def _key(self, images: Tensor) -> Tensor:
        """k = f_k(v_2(x)) squeezed, flat and of unit length (B, D)."""
        key: Tensor = self.key_squeeze(self.key_trunk(self.trunk.extract(images)))
        return F.normalize(key.flatten(1).float(), dim=1)

    def step(self, batch: Batch) -> tuple[Output, Losses]:
        """Eq. 10, its terms by name and with their weights: decision, inter, intra_real, intra_forged."""
        config = self.config
        if config.inter:  # Eq. 1, before this batch moves f_q's normalisation statistics
            follow(self.key_trunk, self.trunk.high, config.beta)
            follow(self.key_squeeze, self.squeeze, config.beta)
        first, second = self._views(batch)
        maps = self.trunk(first.image)
        out = self._judge(maps)
        key = self._key(second) if config.inter else None
        with torch.autocast(maps.device.type, enabled=False):  # exponentials of cosine / tau want float32
            return out, self._losses(out, maps.float(), key, first, batch)

    def _losses(self, out: Output, maps: Tensor, key: Tensor | None, first: Shown, batch: Batch) -> Losses:
        config, target = self.config, batch.target
        phi = 0.0
        if config.inter or config.intra:
            phi = balance(self.progress, len(self.growth) <= 1, config.phi, config.phi_start, config.phi_warmup)
        losses = {"decision": (1.0 - phi) * decision_loss(out.z, target)}
        if key is not None:
            losses["inter"] = phi * self._inter(self.squeeze(maps).flatten(1), key, batch)
        if config.intra:
            size = (maps.shape[2], maps.shape[3])
            forged = forged_parts(first.mask, size, config.forged_share)
            usable = (target == 1) & first.known
            losses["intra_real"] = phi * intra_real_loss(maps[target == 0], config.tau, config.self_pairs)
            losses["intra_forged"] = phi * intra_forged_loss(
                maps[usable], forged[usable], config.tau, config.self_pairs
            )
        return losses

    def _inter(self, query: Tensor, key: Tensor, batch: Batch) -> Tensor:
        """Eq. 3 against the queues as they are, then Eq. 4-6 with this batch's keys."""
        queues = self.queues[0]
        assert isinstance(queues, ClassQueues)
        loss = inter_loss(query, key, batch.target, queues[0].filled()[0], queues[1].filled()[0], self.config.tau)
        queues.enqueue(key, batch.target, batch.row)
        return loss

    def gauges(self) -> dict[str, float]:
        """Share of each class's keys admitted so far, and the queues' filled share: a queue that starves shows here."""
        found: dict[str, float] = {}
        for queues in self.queues:
            assert isinstance(queues, ClassQueues)
            for index, name in enumerate(queues.classes):
                found[f"admission_{name}"] = queues[index].admission_rate()
                found[f"queue_{name}"] = len(queues[index]) / queues[index].capacity
        return found

    def costs(self) -> dict[str, float]:
        """Parameters (f_k's among them, which judging does not need), and the gauges at the end."""
        key = sum(p.numel() for part in (self.key_trunk, self.key_squeeze) for p in part.parameters())
        return {**super().costs(), "key_encoder_parameters": float(key), **self.gauges()}
