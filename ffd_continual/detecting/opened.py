"""A detector in use: rebuilt from a run folder or a lineage, without the data it was taught on.

    detector = open_detector(Path("runs/demo"))
    for verdict in detector.look(read_picture("photo.jpg")):   # every face of a photograph
        print(verdict.box, verdict.score, verdict.decision)
    verdicts = detector.judge([crop1, crop2])                   # face crops, framed as the run's data

Reading is safe from several threads: the learner stays in evaluation mode and is never changed; the face finder, whose
networks keep state, works behind a lock. Axes: B faces, S pixels a side, H, W of a picture, D features, K forgeries.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from ffd_continual.config import RunConfig
from ffd_continual.detecting.framing import Finder, forged_framing, frame_face
from ffd_continual.detecting.verdict import Verdict
from ffd_continual.lineage.lineage import is_lineage, open_lineage
from ffd_continual.load import learner_class, strategy_class
from ffd_continual.measuring.gradcam import grad_cam
from ffd_continual.runs.assemble import choose_device
from ffd_continual.runs.checkpoint import TENSORS, load_checkpoint
from ffd_continual.runs.facts import Facts, Rule, read_facts
from ffd_continual.runs.folder import RunFolder
from ffd_continual.runs.saving import restore
from ffd_continual.scenarios.dataset import Sources
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Found
from ffd_continual.scenarios.table import FaceTable, fit_picture
from ffd_continual.scenarios.views import ViewConfig, to_planes
from ffd_continual.strategies.learner import Learner, Output, place
from ffd_continual.strategies.learners.trunk import TrunkConfig
from ffd_continual.strategies.strategy import Context, Strategy

Picture = npt.NDArray[np.uint8]


def _empty_sources(size: int) -> Sources:
    """What a strategy is built on where no face is at hand."""
    none = np.zeros(0, np.int64)
    pictures, planes = np.zeros((0, size, size, 3), np.uint8), np.zeros((0,), np.uint8)
    landmarks, flags = np.zeros((0, 68, 2), np.float32), np.zeros(0, bool)
    table = FaceTable(pd.DataFrame(), none, pictures, planes, flags, planes, flags, landmarks, ("real",))
    return Sources(table, ViewConfig(), frozenset(), 0, none, none, none, {})


def rebuild(config: RunConfig, checkpoint: Path, device: torch.device) -> tuple[Learner, Strategy]:
    """Learner and strategy as a checkpoint left them, from the configuration alone.

    The backbone is built without its pretrained weights: all of it is in the checkpoint. Raises FFDError when the two
    do not fit, or the checkpoint is broken.
    """
    own = config.learner.config
    trunk = getattr(own, "trunk", None)
    if isinstance(trunk, TrunkConfig):
        own = replace(own, trunk=replace(trunk, weights="none"))
    with torch.random.fork_rng(devices=[]):
        learner: Learner = learner_class(config.learner.name)(own)  # type: ignore[call-arg]
        context = Context(_empty_sources(config.scenario.size), (), config.seed)
        keeper: Strategy = strategy_class(config.strategy.name)(config.strategy.config, context)
        restore(learner, keeper, load_checkpoint(checkpoint), checkpoint)
    place(learner, device)
    learner.eval()
    learner.requires_grad_(False)
    return learner, keeper


def newest_checkpoint(folder: RunFolder) -> tuple[int, Path]:
    """(experience, checkpoint) of a run's last experience that has one. FFDError where none has."""
    found = sorted(p for p in (folder.path / "checkpoints").glob("after_*") if p.is_dir() and p.suffix == "")
    if not found:
        raise FFDError(f"{folder.path} has learnt no experience yet: `ffd resume {folder.path}` goes on with it.")
    return int(found[-1].name.removeprefix("after_")), found[-1]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


@dataclass(frozen=True)
class Opened:
    """A detector that can be asked. Its numbers never change; `with_rule` gives one that decides otherwise."""

    folder: RunFolder
    version: str  # the lineage's version, or the run's name, with the first digits of the weights' SHA-256
    config: RunConfig
    learner: Learner
    keeper: Strategy
    facts: Facts
    rule: Rule
    device: torch.device
    lineage: Path | None = None
    number: int | None = None  # of the lineage's version
    _finder: Finder = field(default_factory=Finder, repr=False)
    _drawing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def size(self) -> int:
        """S, pixels a side that the learner sees."""
        return self.config.scenario.size

    @property
    def known(self) -> tuple[str, ...]:
        """The forgeries it was taught, in order."""
        return tuple(self.learner.growth)

    def with_rule(self, fpr: float | None = None, band: float | None = None) -> Opened:
        """The same detector deciding at another false alarm rate and band. Raises FFDError as `Facts.rule`."""
        return replace(self, rule=self.facts.rule(fpr, band))

    def find(self, picture: Picture) -> list[tuple[Found, Picture]]:
        """Every face of a picture (H, W, 3) RGB, the largest first, with its crop (S, S, 3) framed as the run's data.

        Raises FFDError where the face models are not installed.
        """
        framing = self.facts.framing or forged_framing(self.config.scenario.crop)
        return [(one, frame_face(picture, one.landmarks, framing, self.size)) for one in self._finder.faces(picture)]

    def has_face(self, picture: Picture) -> bool:
        """Whether a face is found in a picture (H, W, 3) RGB."""
        return bool(self._finder.faces(picture))

    def fit(self, crop: Picture) -> Picture:
        """A face crop (H, W, 3) as the run's data hold them, at the learner's size (S, S, 3)."""
        return np.ascontiguousarray(fit_picture(crop, self.size, self.config.scenario.crop))

    def look(self, picture: Picture, maps: bool = True) -> list[Verdict]:
        """Judge every face of a picture (H, W, 3) RGB, the largest first; [] where there is none."""
        found = self.find(picture)
        verdicts = self.ask([crop for _, crop in found], maps)
        return [replace(verdict, box=one.box) for (one, _), verdict in zip(found, verdicts, strict=True)]

    def judge(self, crops: Sequence[Picture], maps: bool = True) -> list[Verdict]:
        """Judge face crops (H, W, 3) RGB that are framed as the run's data."""
        return self.ask([self.fit(crop) for crop in crops], maps)

    def ask(self, faces: Sequence[Picture], maps: bool = True) -> list[Verdict]:
        """Judge what the learner would see: (S, S, 3) RGB each. `maps` off leaves the trace maps out."""
        batch = self.config.train.eval_batch
        return [
            verdict
            for start in range(0, len(faces), batch)
            for verdict in self._ask(faces[start : start + batch], maps)
        ]

    def _ask(self, faces: Sequence[Picture], maps: bool) -> list[Verdict]:
        images = torch.from_numpy(to_planes(faces)).to(self.device)
        with torch.inference_mode():
            out = self.learner(images)
            z = self.keeper.decide(out).double().cpu().numpy()
        planes, kind = self._maps(images, out) if maps else (None, "")
        p = self.facts.calibration.apply(z)
        weights = None if out.attribution is None or not out.known else out.attribution.double().cpu().numpy()
        novelty = None if out.novelty is None else out.novelty.double().cpu().numpy()
        features = out.features["common"].float().cpu().numpy()
        return [
            Verdict(
                z=float(z[i]),
                score=float(p[i]),
                decision=self.rule.decide(float(z[i])),
                attribution={} if weights is None else dict(zip(out.known, map(float, weights[i]), strict=True)),
                novelty=None if novelty is None else float(novelty[i]),
                crop=faces[i],
                feature=features[i],
                trace=None if planes is None else planes[i],
                trace_kind=kind,
            )
            for i in range(len(faces))
        ]

    def _maps(self, images: Tensor, out: Output) -> tuple[Picture | None, str]:
        """(B, S, S) 0..255: the trace's probability, else Grad-CAM over its maximum; None where there is neither."""
        if "trace" in out.maps:
            plane, kind = out.maps["trace"].float(), "trace"
        else:
            with self._drawing:  # its hooks would hear other threads' faces, hence a learner of its own
                try:
                    plane, kind = grad_cam(copy.deepcopy(self.learner), images).float(), "Grad-CAM"
                except FFDError:
                    return None, ""
        wide = torch.nn.functional.interpolate(plane, size=images.shape[-2:], mode="bilinear").squeeze(1)
        peak = wide.flatten(1).amax(1).clamp_min(1e-12)[:, None, None]
        share = torch.sigmoid(wide) if kind == "trace" else wide / peak
        return (share * 255).round().byte().cpu().numpy(), kind


def open_detector(
    path: Path | str,
    version: int | None = None,
    fpr: float | None = None,
    band: float | None = None,
    device: str | None = None,
) -> Opened:
    """The detector of a finished run folder, or of a lineage's version (default: the promoted one).

    fpr, band: the decision's false alarm rate and no-decision band (`Facts.rule`). device: "cpu", "cuda", "auto";
    default: the run's. No data is read. Raises FFDError that says what is missing and what to do.
    """
    where, lineage, number = Path(path), None, None
    if is_lineage(where):
        opened = open_lineage(where)
        number = opened.promoted() if version is None else version
        lineage, where = where, opened.run(number)
    elif version is not None:
        raise FFDError(f"{path} is a run folder, which has no versions: leave --at out, or give a lineage.")
    folder = RunFolder(where)
    config = folder.read_config()
    experience, checkpoint = newest_checkpoint(folder)
    facts = read_facts(where, experience)
    chosen = choose_device(device or config.train.device)
    learner, keeper = rebuild(config, checkpoint, chosen)
    name = where.resolve().name if number is None else f"v{number}"
    label = f"{name}@{_digest(checkpoint / TENSORS)}"
    rule = _rule(facts, fpr, band)
    return Opened(folder, label, config, learner, keeper, facts, rule, chosen, lineage, number)


def _rule(facts: Facts, fpr: float | None, band: float | None) -> Rule:
    """Without validation faces only a rule that nobody asked for is left: one threshold, no band."""
    if fpr is None and band is None and not (facts.reals and facts.forgeds):
        return Rule(float("nan"), 0.0, facts.threshold, facts.threshold)
    return facts.rule(fpr, band)
