"""Every learner, and every decision rule, as an ONNX graph that answers as torch does, for batches of 1 and of 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from ffd_continual.config import config_from
from ffd_continual.detecting.export import MODEL, export_detector
from ffd_continual.detecting.opened import Opened, open_detector
from ffd_continual.run import start
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Output

TRUNK = {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 4}
PYRAMID = {"backbone": "test_efficientnet", "weights": "none"}
LEARNERS: dict[str, dict[str, Any]] = {
    "plain": {"trunk": TRUNK},
    "ce": {"trunk": TRUNK},
    "ce-many": {"trunk": TRUNK, "classes": "many"},
    "dcl": {"trunk": TRUNK, "queue": 64, "map_stages": 5},
    "guide_space": {"trunk": TRUNK, "features": 16, "queue": 64},
    "guide_space-statistics": {"trunk": TRUNK, "features": 16, "queue": 64, "pooling": "statistics"},
    "llsm": {"trunk": PYRAMID},
    "wavelet": {"backbone": "hrnet_w18_small", "weights": "none"},
}
OUTPUTS = {
    "ce-many": {"attribution"},
    "guide_space": {"attribution", "novelty"},
    "guide_space-statistics": {"attribution", "novelty"},
    "llsm": {"trace"},
    "wavelet": {"trace"},
}


def trained(tiny_faces: Path, folder: Path, name: str, strategy: str = "naive") -> Opened:
    """Two steps of each of two forgeries."""
    size = 64 if name == "wavelet" else 48  # HRNet's resolutions fit at multiples of 32 only
    config = {
        "name": "tiny",
        "scenario": {"data": str(tiny_faces), "order": ["alpha", "beta"], "unseen": ["gamma"], "size": size},
        "learner": {"name": name.partition("-")[0], **LEARNERS[name]},
        "strategy": {"name": strategy} | ({} if strategy == "naive" else {"exemplars": 8}),
        "train": {"steps": 2, "batch": 8, "threads": 1, "eval_batch": 16, "device": "cpu"},
        "evaluation": {"bootstrap": 0, "samples": 0, "controls": False},
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffd_continual.finish.write_report", lambda folder, **_: folder)
        start(config_from(config), folder / "run")
    torch.use_deterministic_algorithms(False)
    return open_detector(folder / "run", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "strategy"), [*((name, "naive") for name in LEARNERS), ("plain", "nearest_mean"), ("plain", "sur_lid")]
)
def test_the_graph_of_every_learner_and_rule(tiny_faces: Path, tmp_path: Path, name: str, strategy: str) -> None:
    detector = trained(tiny_faces, tmp_path, name, strategy)
    made = export_detector(detector, tmp_path / "out")
    assert set(made.differences) == {"z", "p"} | OUTPUTS.get(name, set())
    assert max(made.differences.values()) <= 1e-4
    session = onnxruntime.InferenceSession(str(made.folder / MODEL), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    side = detector.size
    pictures = np.random.default_rng(0).integers(0, 255, (3, side, side, 3), np.uint8)
    wanted = detector.ask(list(pictures), maps=False)
    for count in (1, 3):
        planes = pictures[:count].transpose(0, 3, 1, 2).astype(np.float32) / 255
        by = dict(zip(names, session.run(None, {"image": planes}), strict=True))
        assert by["z"] == pytest.approx([one.z for one in wanted[:count]], abs=1e-4)
        assert by["p"] == pytest.approx([one.score for one in wanted[:count]], abs=1e-4)
        if "attribution" in by:
            assert by["attribution"] == pytest.approx(
                np.array([[*one.attribution.values()] for one in wanted[:count]]), abs=1e-4
            )
    assert len({round(one.z, 6) for one in wanted}) == 3, "three pictures, one answer"


@pytest.mark.slow
def test_a_rule_that_branches_on_a_face_is_refused_in_words(
    iin_detector: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rule(out: Output) -> Any:
        return out.z if bool(out.z.sum() > 0) else -out.z

    monkeypatch.setattr(iin_detector.keeper, "decide", rule)
    with pytest.raises(FFDError, match=r"learner iin, strategy iin\) cannot be written as ONNX") as refused:
        export_detector(iin_detector, tmp_path / "out")
    assert "data-dependent" in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert not list(tmp_path.iterdir())
