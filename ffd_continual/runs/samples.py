"""Sample pictures of a finished run: faces of each test and unseen stream with their trace maps and true masks.

A learner without a trace map is shown by Grad-CAM, and the index says so (`map_kind`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ffd_continual.measuring.gradcam import grad_cam
from ffd_continual.runs.assemble import Parts
from ffd_continual.runs.folder import write_text
from ffd_continual.scenarios.dataset import plain_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Learner, Output


def _save(path: Path, image: np.ndarray[Any, Any]) -> None:
    shown = image if image.ndim == 2 else image[..., ::-1]
    _, data = cv2.imencode(".png", np.ascontiguousarray(shown))
    path.write_bytes(data.tobytes())  # imwrite says nothing of a full disk


def stem_of(number: int, forgery: str) -> str:
    """A sample's file name without suffix: a file's name has 255 bytes, a forgery's as many as it likes."""
    plain = re.sub(r"[^\w.+ -]", "_", forgery)
    return f"{number:03d}_{plain[:40]}"


def _map_of(learner: Learner, images: Tensor, out: Output, side: int) -> tuple[np.ndarray[Any, Any] | None, str]:
    """One face's map (side, side), 0..255, and its kind: the trace's probability, else Grad-CAM over its maximum."""
    if "trace" in out.maps:
        plane, kind = out.maps["trace"], "trace"
    else:
        try:
            plane, kind = grad_cam(learner, images), "Grad-CAM"
        except FFDError:  # no convolution: there is no map to show
            return None, ""
    wide = torch.nn.functional.interpolate(plane.float(), size=(side, side), mode="bilinear")[0, 0]
    share = torch.sigmoid(wide) if kind == "trace" else wide / wide.max().clamp_min(1e-12)
    return (share * 255).round().byte().cpu().numpy(), kind


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
        images = batch.image.to(parts.device)
        out = parts.learner(images)
        slot = table.slot[row]
        stem = stem_of(n, name)
        entry: dict[str, Any] = {
            "forgery": name, "label": int(batch.target[0]), "stream": stream,
            "z": float(parts.keeper.decide(out)[0]), "picture": f"{stem}.png",
            "row": int(table.rows["manifest_row"].iloc[row]),
        }  # fmt: skip
        _save(folder / f"{stem}.png", np.asarray(table.pictures[slot]))
        shown, kind = _map_of(parts.learner, images, out, table.size)
        if shown is not None:
            _save(folder / f"{stem}_map.png", shown)
            entry |= {"map": f"{stem}_map.png", "map_kind": kind}
        if len(table.masks) and table.mask_known[slot]:
            _save(folder / f"{stem}_mask.png", np.asarray(table.masks[slot]))
            entry["mask"] = f"{stem}_mask.png"
        index.append(entry)
    write_text(folder / "index.json", json.dumps(index, indent=1))
