"""LLSM: learnable local similarity and forgery localisation. Leng, Fei and Dai, "Learnable Local Similarity for Face
Forgery Detection and Localization" (equations 1 to 8).

A Y: an encoder; on one of its middle maps the similarity module (similarity.py), which is asked of every two cells
whether only one of them is forged; a decoder with skips and channel attention (decoder.py) that predicts the mask; and
a classifier on the decoder's averaged last map. The similarity module serves training only.

Deviations (those of the parts stand in their files):
- **reading**: "middle layer feature" is the map of stride 16, 14 x 14 x 728 with Xception at 224 pixels. `stride: 8`
  suits small pictures better: 96 pixels have 6 x 6 cells of stride 16.
- **reading**: alpha and beta "range between [0, 1]" and are not given; both are 1 here.
- **reading**: without the decoder (rows 1 and 2 of table IV) the classifier reads the encoder's averaged last map.
- The paper trains once on all forgeries; here the same losses run in each experience, and nothing grows.

Axes: B faces, S pixels a side, D channels of the decoder's last map, L cells of the similarity module's map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Learner, Losses, Output, split_decay
from ffd_continual.strategies.learners.decoder import LocalisationModule, mask_loss
from ffd_continual.strategies.learners.pyramid import Pyramid, PyramidConfig
from ffd_continual.strategies.learners.similarity import LocalSimilarity


@dataclass(frozen=True)
class LLSMConfig:
    """Table IV's rows are `similarity` and `localisation`; the paper trains Xception (legacy_xception) at one rate."""

    trunk: PyramidConfig = field(default_factory=PyramidConfig)
    similarity: bool = True  # LLSM, a loss on the encoder's middle map
    localisation: bool = True  # FLM; off: the classifier reads the encoder
    attention: str = "stage"  # CLAFFM's source: "stage" (what entered the stage), "skip" (encoder), "none" (no CLAFFM)
    alpha: float = 1.0  # of the similarity loss, in 0..1
    beta: float = 1.0  # of the mask loss, in 0..1
    hidden: int = 16  # d; 1 is the paper's single kernel, which cannot represent "differs"
    stride: int = 16  # of the encoder's map that the similarity module reads
    share: float = 0.5  # a cell is forged where more than this share of it is
    widths: tuple[int, ...] = (256, 128, 64, 64)  # channels of the decoder's stages, coarsest first; the last is D
    dropout: float = 0.0  # of the classifier's input
    trunk_lr: float = 1.0  # relative to the new layers' learning rate


def _check(config: LLSMConfig) -> None:
    for key, value in (("alpha", config.alpha), ("beta", config.beta), ("share", config.share)):
        if not 0.0 <= value <= 1.0:
            raise FFDError(f"learner.{key} must lie between 0 and 1, not at {value}.")
    if config.hidden < 1:
        raise FFDError(f"learner.hidden must be 1 (the paper's single kernel) or more, not {config.hidden}.")


class LLSM(Learner):
    """Encoder, similarity module, decoder, classifier."""

    config_type = LLSMConfig

    def __init__(self, config: LLSMConfig):
        super().__init__()
        _check(config)
        self.config = config
        self.trunk = Pyramid(config.trunk)
        channels = self.trunk.channels
        self.level = self.trunk.level_of(config.stride) if config.similarity else 0
        self.similarity = (
            LocalSimilarity(channels[self.level], config.hidden, config.share) if config.similarity else None
        )
        self.decoder = LocalisationModule(channels, config.widths, config.attention) if config.localisation else None
        self.head = nn.Linear(config.widths[-1] if config.localisation else channels[-1], 1)

    @property
    def needs(self) -> frozenset[str]:
        """Masks, unless both losses that read them are off."""
        config = self.config
        masked = (config.similarity and config.alpha > 0) or (config.localisation and config.beta > 0)
        return frozenset({"mask"}) if masked else frozenset()

    def _answer(self, levels: Sequence[Tensor]) -> Output:
        last, maps = levels[-1], {}
        if self.decoder is not None:
            last, maps["trace"] = self.decoder(levels)
        common = last.mean((2, 3))
        z = self.head(F.dropout(common, self.config.dropout, self.training)).squeeze(1)
        return Output(z=z, features={"common": common}, maps=maps)

    def forward(self, images: Tensor) -> Output:
        """(B, 3, S, S) to the logit, the feature "common" (B, D) and the mask's logits "trace" (B, 1, h, w)."""
        return self._answer(self.trunk(images))

    @torch.no_grad()
    def similarity_map(self, images: Tensor) -> Tensor:
        """Equation 1: M (B, L, L), how likely it is that only one of two cells is forged.

        Raises FFDError where the similarity module is switched off.
        """
        if self.similarity is None:
            raise FFDError("learner.similarity is off: there is no similarity map. Train with learner.similarity=true.")
        return torch.sigmoid(self.similarity(self.trunk(images)[self.level]))

    def step(self, batch: Batch) -> tuple[Output, Losses]:
        """Equation 8: "decision" (7), alpha * "similarity" (5), beta * "mask" (6)."""
        config = self.config
        levels = self.trunk(batch.image)
        out = self._answer(levels)
        losses = {"decision": F.binary_cross_entropy_with_logits(out.z, batch.target.float())}
        if self.similarity is not None and config.alpha > 0:
            loss = self.similarity.loss(levels[self.level], batch.mask, batch.mask_known)
            losses["similarity"] = config.alpha * loss
        if self.decoder is not None and config.beta > 0:
            losses["mask"] = config.beta * mask_loss(out.maps["trace"], batch.mask, batch.mask_known)
        return out, losses

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """The pretrained encoder learns at `trunk_lr` times the rate of the rest."""
        trunk = list(self.trunk.trained())
        known = {id(p) for p in self.trunk.parameters()}
        rest = [p for p in self.parameters() if id(p) not in known]
        return [*split_decay(trunk, lr * self.config.trunk_lr, weight_decay), *split_decay(rest, lr, weight_decay)]

    def costs(self) -> dict[str, float]:
        """Parameters in all, of the encoder, and of the similarity module, which inference does without."""
        extra = 0 if self.similarity is None else sum(p.numel() for p in self.similarity.parameters())
        return super().costs() | {
            "encoder_parameters": float(sum(p.numel() for p in self.trunk.parameters())),
            "training_only_parameters": float(extra),
        }
