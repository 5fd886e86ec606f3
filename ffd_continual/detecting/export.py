"""A detector as one ONNX graph: learner, decision rule and calibration, for programs without torch.

Input `image` (B, 3, S, S) float32 RGB in 0..1, any B. Outputs: z (B,), p (B,) calibrated probability, and where the
learner has them attribution (B, K), novelty (B,), trace (B, 1, h, w) probability of being forged. The graph is compared
with torch on real faces before it gets its name.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import io
import json
import logging
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ffd_continual.detecting.framing import forged_framing
from ffd_continual.detecting.model_card import write_card
from ffd_continual.detecting.opened import Opened
from ffd_continual.runs.facts import Facts
from ffd_continual.runs.folder import write_text
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.pictures import read_picture
from ffd_continual.scenarios.studio.portrait import studio_faces
from ffd_continual.scenarios.views import to_planes
from ffd_continual.strategies.learner import Learner, Output

MODEL, DESCRIPTION, CARD = "detector.onnx", "preprocess.json", "MODEL_CARD.md"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4
BATCHES = (1, 2, 3, 7, 16)
OPSET = 20
Planes = npt.NDArray[np.float32]


class Judge(nn.Module):
    """Pictures to the named answers, as a tuple in the order of `names`. The learner must be on the CPU."""

    def __init__(self, learner: Learner, decide: Callable[[Output], Tensor], facts: Facts, size: int):
        super().__init__()
        self.learner, self.decide = learner, decide
        self.scale, self.offset = facts.calibration.scale, facts.calibration.offset
        with torch.no_grad():
            first = self.learner(torch.zeros(2, 3, size, size))
        self.known = first.known
        self.names = ("z", "p", *(name for name, _ in _more(first)))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, S, S) in 0..1."""
        out = self.learner(image)
        z = self.decide(out)
        return (z, torch.sigmoid(self.scale * z + self.offset), *(value for _, value in _more(out)))


def _more(out: Output) -> list[tuple[str, Tensor]]:
    """What an answer holds beside z."""
    found = [("attribution", out.attribution), ("novelty", out.novelty)]
    made = [(name, value) for name, value in found if value is not None and (name != "attribution" or out.known)]
    return made + ([("trace", torch.sigmoid(out.maps["trace"]))] if "trace" in out.maps else [])


@dataclass(frozen=True)
class Exported:
    """Where the files lie, and the largest difference to torch of each output over all faces and batch sizes."""

    folder: Path
    differences: dict[str, float]
    faces: int
    source: str  # which faces


def check_packages() -> None:
    """Raise FFDError naming the command that installs what is missing."""
    lacking = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if lacking:
        raise FFDError(f"ffd export needs {', '.join(lacking)}: run pip install 'ffd-continual[onnx]'")


def probe_faces(detector: Opened, count: int = 16) -> tuple[list[npt.NDArray[np.uint8]], str]:
    """Faces (S, S, 3) to compare on: the run's own samples, else rendered portraits; and which they are."""
    found = []
    for path in sorted((detector.folder.path / "samples").glob("[0-9]*.png")):
        if not path.stem.endswith(("_map", "_mask")):
            picture = read_picture(path)
            if picture.shape == (detector.size, detector.size, 3):
                found.append(picture)
    if len(found) >= 2:
        return found[:64], "faces of the run's samples"
    made = studio_faces(count, 1, seed=0, size=max(64, detector.size))
    return [detector.fit(face.image) for face in made], "rendered portraits"


def _operators() -> Any:
    """ONNX's operators of OPSET; imported here, as the package may be missing."""
    return importlib.import_module("onnxscript").opset20


def _stable_sort(self: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """aten::sort.stable, unknown to the exporter: TopK takes the lower index among equals, as a stable sort does."""
    ops = _operators()
    count = ops.Reshape(ops.Gather(ops.Shape(self), dim), [1])
    values, index = ops.TopK(self, count, axis=dim, largest=int(descending), sorted=1)
    return values, index


def _log_sigmoid(self: Any) -> Any:
    """min(x, 0) - log(1 + exp(-|x|)): the exporter's log of a sigmoid loses digits where the sigmoid is small."""
    ops = _operators()
    tail = ops.Log(ops.Add(ops.CastLike(1.0, self), ops.Exp(ops.Neg(ops.Abs(self)))))
    return ops.Sub(ops.Min(self, ops.CastLike(0.0, self)), tail)


def first_cause(error: BaseException) -> str:
    """The first line, without colours, of what an exception goes back to."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return (lines[0].strip(" .") if lines else type(error).__name__)[:200]


def _write_graph(judge: Judge, size: int, path: Path, what: tuple[str, str]) -> None:
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                judge,
                (torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0)),),
                str(path),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=list(judge.names),
                dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1)}},
                custom_translation_table={
                    torch.ops.aten.sort.stable: _stable_sort,
                    torch.ops.aten.log_sigmoid.default: _log_sigmoid,
                },
                external_data=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise FFDError(
            f"this detector (learner {what[0]}, strategy {what[1]}) cannot be written as ONNX, as something in it is "
            f"no fixed function of the picture: {first_cause(error)}. What ffd_continual brings can be (`ffd list "
            "learners`); a learner of your own may need `closed()` to return a copy without branches on its data."
        ) from error
    finally:
        quiet.setLevel(level)


def compare(judge: Judge, path: Path, images: Planes, batches: Sequence[int]) -> dict[str, float]:
    """The largest absolute difference between onnxruntime and torch of each output, over batches of each size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = dict.fromkeys(judge.names, 0.0)
    for batch in batches:
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            with torch.inference_mode():
                wanted = judge(torch.from_numpy(part))
            for name, mine, theirs in zip(judge.names, wanted, session.run(None, {"image": part}), strict=True):
                gap = float(np.abs(mine.numpy() - theirs).max()) if theirs.shape == tuple(mine.shape) else float("inf")
                worst[name] = max(worst[name], gap) if gap == gap else float("inf")
    return worst


def describe(detector: Opened, judge: Judge, differences: dict[str, float], faces: int, source: str) -> dict[str, Any]:
    """How to make an input, what the outputs mean, and how decisions are made."""
    framing = detector.facts.framing or forged_framing(detector.config.scenario.crop)
    rule = detector.rule
    return {
        "version": detector.version,
        "input": {
            "name": "image", "shape": ["batch", 3, detector.size, detector.size], "type": "float32", "colour": "RGB",
            "range": [0, 1], "resize": "area when shrinking, cubic when growing",
        },
        "framing": {
            "landmarks": "68 points, iBUG order",
            "hull_share": framing.extent, "hull_centre": [framing.x, framing.y],
            "measured": detector.facts.framing is not None,
            "central_share_of_data_crops": detector.config.scenario.crop,
        },
        "outputs": list(judge.names),
        "known": list(judge.known),
        "calibration": {"scale": detector.facts.calibration.scale, "offset": detector.facts.calibration.offset},
        "decision": {
            "forged_from_z": rule.forged, "real_below_z": rule.real,
            "fpr": rule.fpr if rule.fpr == rule.fpr else None, "band": rule.band, "else": "no decision",
        },
        "checked": {"faces": faces, "source": source, "batches": list(BATCHES), "differences": differences},
    }  # fmt: skip


def export_detector(detector: Opened, out: Path, overwrite: bool = False) -> Exported:
    """Write detector.onnx, preprocess.json and MODEL_CARD.md into `out`, all or nothing.

    Raises FFDError where packages are missing, `out` is in use, the detector cannot be a graph, or the graph answers
    otherwise than torch by more than 1e-4.
    """
    check_packages()
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
        raise FFDError(f"{out} is there already. Choose another --out, or --overwrite.")
    faces, source = probe_faces(detector)
    learner, keeper, rest = detector.learner, detector.keeper, (detector.facts, detector.size)
    judge = Judge(learner.closed().cpu(), keeper.closed_rule(), *rest)
    truth = Judge(copy.deepcopy(learner).cpu(), keeper.decide, *rest)  # as it judges, not as it was closed
    part = out.with_name(f".{out.name}.{uuid4().hex[:8]}.part")
    part.mkdir(parents=True)
    try:
        config = detector.config
        _write_graph(judge, detector.size, part / MODEL, (config.learner.name, config.strategy.name))
        differences = compare(truth, part / MODEL, to_planes(faces), BATCHES)
        wrong = {name: gap for name, gap in differences.items() if not gap <= TOLERANCE}
        if wrong:
            listed = ", ".join(f"{name} by {gap:.2g}" for name, gap in wrong.items())
            raise FFDError(f"the graph answers otherwise than torch: {listed} (1e-4 is allowed). Nothing was written.")
        words = describe(detector, judge, differences, len(faces), source)
        write_text(part / DESCRIPTION, json.dumps(words, indent=1))
        write_card(detector, part / CARD, words["checked"])
        out.mkdir(parents=True, exist_ok=True)
        for file in part.iterdir():
            file.replace(out / file.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Exported(out, differences, len(faces), source)
