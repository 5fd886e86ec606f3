"""Sample pictures of a finished run: faces of each test and unseen stream with their trace maps and true masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ffd_continual.assemble import Parts
from ffd_continual.run_folder import write_text
from ffd_continual.scenarios.dataset import plain_batch


def _save(path: Path, image: np.ndarray[Any, Any]) -> None:
    shown = image if image.ndim == 2 else image[..., ::-1]
    cv2.imwrite(str(path), np.ascontiguousarray(shown))


def _grey(plane: Tensor, side: int) -> np.ndarray[Any, Any]:
    resized = torch.nn.functional.interpolate(plane[None], size=(side, side), mode="bilinear")[0, 0]
    return (torch.sigmoid(resized) * 255).round().byte().cpu().numpy()


@torch.no_grad()
def write_samples(folder: Path, parts: Parts, count: int) -> None:
    """`count` forged faces a forgery and as many real ones, evenly spread over each stream; index.json lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    table = parts.sources.table
    parts.learner.eval()
    index = []
    chosen: list[tuple[str, str, int]] = []
    for stream, names in (("test", parts.scenario.experiences), ("unseen", parts.scenario.unseen)):
        for name in names:
            rows = parts.scenario.index(stream, name)
            forged = rows[parts.sources.forgery[rows] > 0]
            spread = np.linspace(0, len(forged) - 1, min(count, len(forged))).astype(int)
            chosen += [(stream, name, int(forged[i])) for i in spread]
            if stream == "test" and name == names[0]:
                real = rows[parts.sources.forgery[rows] == 0]
                chosen += [(stream, "real", int(real[i])) for i in np.linspace(0, len(real) - 1, count).astype(int)]
    for n, (stream, name, row) in enumerate(chosen):
        batch = plain_batch(parts.sources, [row])
        out = parts.learner(batch.image.to(parts.device))
        slot = table.slot[row]
        stem = f"{n:03d}_{name.replace('/', '_')}"
        entry: dict[str, Any] = {
            "forgery": name, "label": int(batch.target[0]), "stream": stream,
            "z": float(parts.keeper.decide(out)[0]), "picture": f"{stem}.png",
        }  # fmt: skip
        _save(folder / f"{stem}.png", np.asarray(table.pictures[slot]))
        if "trace" in out.maps:
            _save(folder / f"{stem}_map.png", _grey(out.maps["trace"][0], table.size))
            entry["map"] = f"{stem}_map.png"
        if len(table.masks) and table.mask_known[slot]:
            _save(folder / f"{stem}_mask.png", np.asarray(table.masks[slot]))
            entry["mask"] = f"{stem}_mask.png"
        index.append(entry)
    write_text(folder / "index.json", json.dumps(index, indent=1))
