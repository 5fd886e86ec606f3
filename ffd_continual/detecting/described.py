"""What a detector says of faces, as arrays that can be joined, cut, stored and compared.

Axes: N faces, F features, K known forgeries, D features of one module, R residual statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ffd_continual.detecting.opened import Opened, Picture
from ffd_continual.detecting.residual import residual_statistics
from ffd_continual.detecting.verdict import Verdict
from ffd_continual.runs.modules import expert_modules
from ffd_continual.scenarios.errors import FFDError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Described:
    """What a detector says of N faces."""

    p: Floats  # (N,) calibrated probability of being forged
    weights: Floats  # (N, K) attribution; one column of ones where the learner has none
    novelty: Floats  # (N,) NaN where the learner has none
    common: Floats  # (N, F)
    special: Floats  # (N, K D) what the modules of single forgeries see, side by side; `common` where there are none
    heard: Floats  # (N, K) the modules' logits; (N, 0) where there are none
    residual: Floats  # (N, R) of the picture itself

    def take(self, at: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Described:
        """Some of the faces."""
        return Described(*(getattr(self, one.name)[at] for one in fields(self)))

    def closed(self, at: int) -> Described:
        """The same faces as if module `at` had never been added: all else a module's detector says stays as it is."""
        count = self.heard.shape[1]
        apart = self.special.reshape(len(self.special), count, -1)
        return replace(
            self,
            special=np.delete(apart, at, axis=1).reshape(len(apart), -1),
            heard=np.delete(self.heard, at, axis=1),
        )


def join(parts: Sequence[Described]) -> Described:
    """Faces one after the other."""
    return Described(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Described)))


def distinct(rows: pd.DataFrame, faces: Sequence[Picture]) -> tuple[pd.DataFrame, list[Picture]]:
    """Rows and their faces, each picture once for a forgery: experiences may share their real faces, and a face that
    counts five times is its own five nearest."""
    seen: set[tuple[str, bytes]] = set()
    at = []
    for row, (label, forgery, face) in enumerate(zip(rows["label"], rows["forgery"], faces, strict=True)):
        key = (str(forgery) if label else "", face.tobytes())
        if key not in seen:
            seen.add(key)
            at.append(row)
    return rows.iloc[at], [faces[row] for row in at]


def describe_faces(detector: Opened, faces: Sequence[Picture]) -> Described:
    """Ask a detector about what its learner would see: (S, S, 3) RGB each. FFDError without any face."""
    if not faces:
        raise FFDError("there is no face to describe.")
    verdicts, special, heard = _ask(detector, faces)
    common = np.stack([verdict.feature for verdict in verdicts]).astype(np.float64)
    return Described(
        p=np.array([verdict.score for verdict in verdicts]),
        weights=np.array([list(verdict.attribution.values()) or [1.0] for verdict in verdicts]),
        novelty=np.array([np.nan if verdict.novelty is None else verdict.novelty for verdict in verdicts]),
        common=common,
        special=common if special is None else special,
        heard=heard,
        residual=residual_statistics(faces),
    )


def _ask(detector: Opened, faces: Sequence[Picture]) -> tuple[list[Verdict], Floats | None, Floats]:
    """Verdicts, and on the way what each module of one forgery sees (N, K D) and says (N, K); None and (N, 0) without
    such modules. Other threads must not ask meanwhile: their faces would be heard, too."""
    modules = expert_modules(detector.learner) or ()
    answers: list[list[Sequence[Tensor]]] = [[] for _ in modules]

    def listen(module: nn.Module, into: list[Sequence[Tensor]]) -> RemovableHandle:
        return module.register_forward_hook(lambda _module, _asked, answer: into.append(answer))

    handles = [listen(module, into) for module, into in zip(modules, answers, strict=True)]
    try:
        with detector.learner.speaking():
            verdicts = detector.ask(faces, maps=False)
    finally:
        for handle in handles:
            handle.remove()
    if not answers or not all(answers):
        return verdicts, None, np.zeros((len(faces), 0))
    seen = torch.stack([torch.cat([answer[0] for answer in own]) for own in answers], dim=1)
    said = torch.stack([torch.cat([answer[1] for answer in own]) for own in answers], dim=1)
    return verdicts, seen.flatten(1).double().cpu().numpy(), said.double().cpu().numpy()
