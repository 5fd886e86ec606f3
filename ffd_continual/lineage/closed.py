"""What closed modules say of the faces that every version is measured on, asked once for all additions.

A learner with a module a type (IIN) would ask K modules about the test faces of K types after each addition: the square
of what is known. But a closed module never changes, and what it reads of a face (frozen layers) neither; so its logit
is looked up by the module's weights and the bytes that it reads, and only new modules and new faces are asked. A logit
is computed in batches of one fixed size (see judged.py), so that looking it up and asking again give the same bits.
Axes: B faces of a batch, N faces met so far, M modules.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ffd_continual.lineage.judged import BATCH, KEY
from ffd_continual.strategies.learner import Learner

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]


def digest_of(module: nn.Module) -> bytes:
    """Names a module's weights."""
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.digest()[:KEY]


@torch.no_grad()
def asked(module: nn.Module, low: Tensor) -> npt.NDArray[np.float32]:
    """The module's logits (B,) of what it reads, in batches of exactly BATCH, filled up with zeros."""
    found = []
    for start in range(0, len(low), BATCH):
        chunk = low[start : start + BATCH]
        filled = torch.cat([chunk, chunk.new_zeros((BATCH - len(chunk), *chunk.shape[1:]))])
        found.append(type(module).forward(module, filled)[1][: len(chunk)].float().cpu().numpy())
    return np.concatenate(found)


class ClosedModules:
    """Stands in for the settled modules of a learner that judges; on disk only after `save`."""

    def __init__(self, path: Path):
        self.path = path
        self.faces: dict[bytes, int] = {}
        self.modules: dict[bytes, int] = {}
        self.z = np.full((0, 0), np.nan, np.float32)  # (N, M), NaN: not asked yet
        self._now: tuple[Tensor, npt.NDArray[np.int64]] | None = None
        self._standing: list[nn.Module] = []
        if path.is_file():
            with np.load(path) as held:
                self.faces = {key.tobytes(): row for row, key in enumerate(held["faces"])}
                self.modules = {key.tobytes(): column for column, key in enumerate(held["modules"])}
                self.z = held["z"]

    def stand_in(self, learner: Learner) -> None:
        """Answer for the learner's settled modules, with the weights that they have now."""
        self.step_back()
        for module in learner.settled():
            column = self.modules.setdefault(digest_of(module), len(self.modules))
            module.__dict__["forward"] = self._forward(module, column)
            self._standing.append(module)
        self._room()

    def step_back(self) -> None:
        """The modules answer for themselves again."""
        for module in self._standing:
            module.__dict__.pop("forward", None)
        self._standing, self._now = [], None

    def save(self) -> None:
        """Written whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part.npz")
        keys = [np.frombuffer(b"".join(known), np.uint8).reshape(-1, KEY) for known in (self.faces, self.modules)]
        try:
            np.savez(part, faces=keys[0], modules=keys[1], z=self.z[: len(self.faces), : len(self.modules)])
            part.rename(self.path)
        finally:
            part.unlink(missing_ok=True)

    def _room(self) -> None:
        rows, columns = self.z.shape
        if rows < len(self.faces) or columns < len(self.modules):
            more = np.full((max(rows, 2 * len(self.faces)), max(columns, len(self.modules))), np.nan, np.float32)
            more[:rows, :columns] = self.z
            self.z = more

    def _rows(self, low: Tensor) -> npt.NDArray[np.int64]:
        """Where the faces of a batch stand; all modules are asked with the same tensor, which is read once."""
        if self._now is None or self._now[0] is not low:
            plain = low.detach().cpu().contiguous().numpy()
            digests = [hashlib.sha256(face.tobytes()).digest()[:KEY] for face in plain]
            rows = np.array([self.faces.setdefault(one, len(self.faces)) for one in digests], np.int64)
            self._now = (low, rows)
            self._room()
        return self._now[1]

    def _forward(self, module: nn.Module, column: int) -> Forward:
        def forward(low: Tensor) -> tuple[Tensor, Tensor]:
            rows = self._rows(low)
            z = self.z[rows, column]
            missing = np.flatnonzero(np.isnan(z))
            if len(missing):
                z[missing] = asked(module, low[torch.from_numpy(missing).to(low.device)])
                self.z[rows, column] = z
            return low.new_zeros((len(low), 0)), torch.from_numpy(z).to(low.device)  # judging reads the logit alone

        return forward
