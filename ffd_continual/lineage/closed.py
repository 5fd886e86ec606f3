"""What modules that learn no more say of the faces that every version is measured on, asked once for all additions.

A learner with a module a type (IIN) would ask K modules about the test faces of K types after each addition: the square
of what is known. But a closed module never changes, and what it reads of a face (frozen layers) neither; so what it
says is looked up by the module's weights and the bytes that it reads, and only new modules and new faces are asked. An
answer is computed in batches of one fixed size (see judged.py), so that looking it up and asking again give the same
bits.
Axes: B faces of a batch, N faces met so far, M modules, A numbers of an answer (those of one learner all give as many).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ffd_continual.lineage.judged import BATCH
from ffd_continual.scenarios.array_store import KEY
from ffd_continual.strategies.learner import Learner


def digest_of(module: nn.Module) -> bytes:
    """Names a module's weights."""
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.digest()[:KEY]


@torch.no_grad()
def asked(module: nn.Module, low: Tensor) -> npt.NDArray[np.float32]:
    """What the module says (B, A) of what it reads, in batches of exactly BATCH, filled up with zeros."""
    found = []
    for start in range(0, len(low), BATCH):
        chunk = low[start : start + BATCH]
        filled = torch.cat([chunk, chunk.new_zeros((BATCH - len(chunk), *chunk.shape[1:]))])
        found.append(module.say(filled)[: len(chunk)].float().cpu().numpy())  # type: ignore[operator]
    return np.concatenate(found)


class ClosedModules:
    """`Answers` of a learner's modules; on disk only after `save`."""

    def __init__(self, path: Path):
        self.path = path
        self.faces: dict[bytes, int] = {}
        self.modules: dict[bytes, int] = {}
        self.words = np.zeros((0, 0, 0), np.float32)  # (N, M, A)
        self.asked = np.zeros((0, 0), np.bool_)  # (N, M)
        self._now: tuple[Tensor, npt.NDArray[np.int64]] | None = None
        self._columns: dict[nn.Module, int] = {}
        if path.is_file():
            with np.load(path) as held:
                if "words" in held:  # an older version kept logits alone: all is asked again
                    self.faces = {key.tobytes(): row for row, key in enumerate(held["faces"])}
                    self.modules = {key.tobytes(): column for column, key in enumerate(held["modules"])}
                    self.words, self.asked = held["words"], held["asked"]

    @contextmanager
    def answering(self, learner: Learner) -> Iterator[None]:
        """Answer for the learner's modules with the weights that they have now, until the block ends: nothing may learn
        in it."""
        learner.answers = self
        try:
            yield
        finally:
            learner.answers, self._columns, self._now = None, {}, None

    def said(self, module: nn.Module, read: Tensor) -> Tensor:
        """(B, A), looked up; new faces are asked first."""
        column, rows = self._column(module), self._rows(read)
        missing = np.flatnonzero(~self.asked[rows, column])
        if len(missing):
            new = asked(module, read[torch.from_numpy(missing).to(read.device)])
            self._room(new.shape[1])
            self.words[rows[missing], column] = new
            self.asked[rows[missing], column] = True
        return torch.from_numpy(self.words[rows, column]).to(read.device)

    def save(self) -> None:
        """Written whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part.npz")
        keys = [np.frombuffer(b"".join(known), np.uint8).reshape(-1, KEY) for known in (self.faces, self.modules)]
        try:
            n, m = len(self.faces), len(self.modules)
            np.savez(part, faces=keys[0], modules=keys[1], words=self.words[:n, :m], asked=self.asked[:n, :m])
            part.rename(self.path)
        finally:
            part.unlink(missing_ok=True)

    def _room(self, numbers: int = 0) -> None:
        rows, columns, wide = self.words.shape
        if rows < len(self.faces) or columns < len(self.modules) or wide < numbers:
            shape = (max(rows, 2 * len(self.faces)), max(columns, len(self.modules)), max(wide, numbers))
            words, known = np.zeros(shape, np.float32), np.zeros(shape[:2], np.bool_)
            words[:rows, :columns, :wide], known[:rows, :columns] = self.words, self.asked
            self.words, self.asked = words, known

    def _column(self, module: nn.Module) -> int:
        """Where a module stands; it is named by its weights when it is first asked for in a block."""
        if module not in self._columns:
            self._columns[module] = self.modules.setdefault(digest_of(module), len(self.modules))
            self._room()
        return self._columns[module]

    def _rows(self, low: Tensor) -> npt.NDArray[np.int64]:
        """Where the faces of a batch stand; all modules are asked with the same tensor, which is read once."""
        if self._now is None or self._now[0] is not low:
            plain = low.detach().cpu().contiguous().numpy()
            digests = [hashlib.sha256(face.tobytes()).digest()[:KEY] for face in plain]
            rows = np.array([self.faces.setdefault(one, len(self.faces)) for one in digests], np.int64)
            self._now = (low, rows)
            self._room()
        return self._now[1]
