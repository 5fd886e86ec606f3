"""The LLSM learner: equation 8 term by term, its switches and limits, and what a short run finds."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from ffd_continual.config import apply_sets, config_from, fill, read_yaml
from ffd_continual.load import learner_class
from ffd_continual.measuring.traces import pixel_auc
from ffd_continual.run import start
from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.dataset import train_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.llsm import LLSM, LLSMConfig
from ffd_continual.strategies.learners.pyramid import PyramidConfig
from ffd_continual.strategies.learners.similarity import binary_cells, pair_targets
from ffd_continual.strategies.training.plan import StepPlan
from ffd_continual.sweeping.grid import Grid

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALL: dict[str, Any] = {
    "trunk": PyramidConfig("test_efficientnet", "none"),
    "widths": (16, 12),
    "hidden": 4,
    "stride": 8,
}


def _learner(**changes: Any) -> LLSM:
    torch.manual_seed(0)
    return LLSM(dataclasses.replace(LLSMConfig(**SMALL), **changes))


@pytest.fixture(scope="module")
def batch(workshop: Any) -> Batch:
    """Eight faces of the tiny set, four real, with masks."""
    _, parts = workshop.parts("llsm", batch=8)
    request = next(iter(StepPlan(parts.keeper, parts.sources, 0, 8, 0, 1)))
    made = train_batch(parts.sources, request)
    assert 0 < int(made.target.sum()) < 8
    assert bool(made.mask_known.all())
    return made


def test_the_terms_are_those_of_equation_8(batch: Batch) -> None:
    """Each term once more by loops, from what the network itself says."""
    learner = _learner(alpha=0.25, beta=0.5).double().eval()
    batch = batch._replace(image=batch.image.double(), mask=batch.mask.double())
    out, losses = learner.step(batch)
    assert list(losses) == ["decision", "similarity", "mask"]

    decision = 0.0
    for z, target in zip(out.z.tolist(), batch.target.tolist(), strict=True):
        said = 1.0 / (1.0 + math.exp(-z))
        decision -= math.log(said) if target else math.log(1.0 - said)
    assert losses["decision"].item() == pytest.approx(decision / 8, abs=1e-6)

    similarity, pairs = 0.0, learner.similarity_map(batch.image)
    assert pairs.shape == (8, 16, 16)  # 32 pixels, stride 8
    for face in range(8):
        cells = []
        for i in range(4):
            for j in range(4):
                patch = batch.mask[face, 0, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
                cells.append(float(sum(patch.flatten().tolist()) / 64 > 0.5))
        for r in range(16):
            for s in range(16):
                said = float(pairs[face, r, s])
                similarity -= math.log(said) if cells[r] != cells[s] else math.log(1.0 - said)
    assert losses["similarity"].item() == pytest.approx(0.25 * similarity / (8 * 256), abs=1e-6)

    mask, logits = 0.0, torch.nn.functional.interpolate(out.maps["trace"], size=(32, 32), mode="bilinear")
    for face in range(8):
        for y in range(32):
            for x in range(32):
                said = 1.0 / (1.0 + math.exp(-logits[face, 0, y, x].item()))
                mask -= math.log(said) if float(batch.mask[face, 0, y, x]) > 0.5 else math.log(1.0 - said)
    assert losses["mask"].item() == pytest.approx(0.5 * mask / (8 * 32 * 32), abs=1e-6)


def test_the_classifier_reads_the_decoder_s_mean(batch: Batch) -> None:
    learner = _learner().eval()
    assert learner.decoder is not None
    last, logits = learner.decoder(learner.trunk(batch.image))
    out = learner(batch.image)
    assert torch.equal(out.features["common"], last.mean((2, 3)))
    assert torch.equal(out.z, learner.head(last.mean((2, 3))).squeeze(1))
    assert torch.equal(out.maps["trace"], logits)
    assert out.features["common"].shape == (8, 12)


@pytest.mark.parametrize(
    ("changes", "terms", "parts", "needs"),
    [
        ({"similarity": False, "localisation": False}, ["decision"], [], set()),
        ({"localisation": False}, ["decision", "similarity"], ["similarity"], {"mask"}),
        ({"similarity": False}, ["decision", "mask"], ["decoder"], {"mask"}),
        ({}, ["decision", "similarity", "mask"], ["similarity", "decoder"], {"mask"}),
        ({"alpha": 0.0, "beta": 0.0}, ["decision"], ["similarity", "decoder"], set()),
        ({"alpha": 0.0}, ["decision", "mask"], ["similarity", "decoder"], {"mask"}),
    ],
)
def test_each_switch_changes_terms_and_parameters(
    batch: Batch, changes: dict[str, Any], terms: list[str], parts: list[str], needs: set[str]
) -> None:
    learner = _learner(**changes)
    out, losses = learner.step(batch)
    assert list(losses) == terms
    assert {name.split(".")[0] for name, _ in learner.named_parameters()} == {"trunk", "head", *parts}
    assert learner.needs == needs
    assert ("trace" in out.maps) == ("decoder" in parts)
    width = 12 if "decoder" in parts else learner.trunk.channels[-1]
    assert out.features["common"].shape == (8, width)


def test_attention_and_kernel_switches_change_parameters(batch: Batch) -> None:
    kinds = {kind: _learner(attention=kind) for kind in ("stage", "skip", "none")}
    names = {kind: {n for n, _ in learner.named_parameters() if "attention" in n} for kind, learner in kinds.items()}
    assert names["none"] == set()
    assert len(names["stage"]) == len(names["skip"]) == 2 * 4
    assert len({learner.step(batch)[1]["mask"].item() for learner in kinds.values()}) == 3
    single = _learner(hidden=1)
    assert single.similarity is not None
    assert single.similarity.point is None
    assert single.similarity.pair.weight.shape == (1, single.trunk.channels[2], 2, 1)


def test_without_weights_the_gradient_is_the_classification_s(batch: Batch) -> None:
    """alpha = beta = 0: nothing but the decision reaches the encoder, as with a learner that has no such modules."""
    silent = _learner(alpha=0.0, beta=0.0, localisation=False).eval()
    bare = _learner(similarity=False, localisation=False).eval()
    bare.load_state_dict({k: v for k, v in silent.state_dict().items() if not k.startswith("similarity")})
    for learner in (silent, bare):
        torch.stack(list(learner.step(batch)[1].values())).sum().backward()  # type: ignore[no-untyped-call]
    for one, other in zip(silent.trunk.parameters(), bare.trunk.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)  # type: ignore[arg-type]
    assert silent.similarity is not None
    assert all(p.grad is None for p in silent.similarity.parameters())


def test_an_unknown_mask_is_never_read(batch: Batch) -> None:
    learner = _learner().eval()
    known = batch.mask_known.clone()
    known[batch.target.argmax()] = False
    other = batch.mask.clone()
    other[batch.target.argmax()] = torch.rand_like(other[0]).round()
    answers = [learner.step(batch._replace(mask=mask, mask_known=known))[1] for mask in (batch.mask, other)]
    assert all(torch.equal(answers[0][term], answers[1][term]) for term in answers[0])
    told = [learner.step(batch._replace(mask=mask))[1] for mask in (batch.mask, other)]
    assert not torch.equal(told[0]["mask"], told[1]["mask"])
    silent = learner.step(batch._replace(mask_known=torch.zeros_like(known)))[1]
    assert silent["mask"].item() == silent["similarity"].item() == 0.0
    assert silent["decision"].item() > 0


def test_every_trained_parameter_is_in_one_group_and_the_trunk_at_its_rate() -> None:
    learner = _learner(trunk_lr=0.25, trunk=PyramidConfig("test_efficientnet", "none", 1))
    groups = learner.param_groups(0.4, 0.1)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in learner.parameters() if p.requires_grad)
    trunk = {id(p) for p in learner.trunk.parameters()}
    for group in groups:
        rate = 0.1 if id(group["params"][0]) in trunk else 0.4
        assert group["lr"] == pytest.approx(rate)
        assert all((id(p) in trunk) == (rate == 0.1) for p in group["params"])


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"alpha": 1.5}, "alpha"), ({"beta": -0.1}, "beta"), ({"hidden": 0}, "hidden"), ({"stride": 7}, "strides"),
     ({"widths": (8,) * 5}, "5 levels"), ({"share": 2.0}, "share")],
)  # fmt: skip
def test_a_wrong_setting_is_told(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(FFDError, match=word):
        _learner(**changes)


def test_no_similarity_map_without_its_module(batch: Batch) -> None:
    with pytest.raises(FFDError, match="similarity=true"):
        _learner(similarity=False).similarity_map(batch.image)


def test_data_without_masks_are_refused_before_training(tiny_faces: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(tiny_faces, dtype=str, keep_default_na=False).drop(columns=["mask", "pair"])
    rows["path"] = [str(tiny_faces.parent / p) for p in rows["path"]]
    rows.to_csv(tmp_path / "manifest.csv", index=False)
    values = {
        "scenario": {"data": str(tmp_path / "manifest.csv"), "order": ["alpha"], "size": 32},
        "learner": {"name": "llsm", "trunk": {"backbone": "test_efficientnet", "weights": "none"}},
        "strategy": {"name": "naive"},
        "train": {"steps": 1, "batch": 4, "threads": 1, "device": "cpu"},
    }
    with pytest.raises(FFDError, match="mask"):
        start(config_from(values), tmp_path / "run")


def test_trained_on_one_batch_the_mask_and_the_similarity_map_come_out_right(batch: Batch) -> None:
    learner = _learner(widths=(24, 16, 12), share=0.2).train()
    optimizer = torch.optim.Adam(learner.param_groups(1e-2, 0.0), 1e-2)
    history = []
    for _ in range(60):
        losses = learner.step(batch)[1]
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        history.append({term: loss.item() for term, loss in losses.items()})
    assert all(history[-1][term] < 0.5 * history[0][term] for term in history[0])
    raised = torch.nn.functional.interpolate(learner(batch.image).maps["trace"], size=(32, 32), mode="bilinear")
    said, truth, forged = torch.sigmoid(raised.detach()), batch.mask > 0.5, batch.target == 1
    for face in forged.nonzero().flatten().tolist():
        assert pixel_auc(said[face, 0].numpy(), truth[face, 0].numpy()) > 0.9
        assert said[face][truth[face]].mean().item() > 3 * said[face][~truth[face]].mean().item()
    assert said[~forged].mean().item() < 0.1  # real faces have the empty mask
    pairs = learner.similarity_map(batch.image) > 0.5
    assert (pairs == (pair_targets(binary_cells(batch.mask, (4, 4), 0.2)) > 0.5)).float().mean().item() > 0.95


def test_a_short_run_localises_and_its_figures_are_kept(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    """Trained on stripes, the predicted masks find them on test people, and the run's predictions say how well."""
    tiny_config["scenario"] |= {"order": ["alpha"]}
    tiny_config["learner"] = {
        "name": "llsm", "trunk": {"backbone": "test_efficientnet", "weights": "none"}, "widths": [24, 16, 12],
        "stride": 8, "share": 0.2,
    }  # fmt: skip
    tiny_config["strategy"] = {"name": "replay", "exemplars": 8}
    tiny_config["train"] |= {"steps": 40, "batch": 16, "lr": 1e-2}
    start(config_from(tiny_config), tmp_path / "run")
    scores = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert scores[scores["label"] == 0]["pixel_auc"].isna().all()
    forged = scores[(scores["label"] == 1) & (scores["on"] == "alpha")]
    assert forged[["iou", "pixel_auc"]].notna().all().all()
    untrained, learnt = (forged[forged["after"] == after]["pixel_auc"].mean() for after in (-1, 0))
    assert learnt > 0.8
    assert learnt > untrained + 0.2


@pytest.mark.parametrize("name", ["llsm_ablation", "llsm_parts"])
def test_the_grids_rows_are_all_different_learners_that_exist(name: str) -> None:
    grid = fill(Grid, yaml.safe_load((CONFIGS / "grids" / f"{name}.yaml").read_text(encoding="utf-8")))
    base = read_yaml(str(CONFIGS / f"{grid.base}.yaml"))
    made = {row: config_from(apply_sets(base, sets)).learner for row, sets in grid.cells().items()}
    assert all(choice.name == "llsm" for choice in made.values())
    assert len({choice.config for choice in made.values()}) == len(made)
    if name == "llsm_ablation":
        switches = {(c.config.similarity, c.config.localisation) for c in made.values()}
        assert switches == {(False, False), (True, False), (False, True), (True, True)}


def test_the_paper_s_configuration_is_the_paper_s() -> None:
    config = config_from(read_yaml(str(CONFIGS / "llsm_ffpp.yaml")))
    assert config.learner.config.trunk == PyramidConfig("legacy_xception", "timm", 0)
    assert (config.scenario.size, config.train.batch, config.train.lr, config.train.optimizer) == (
        224,
        32,
        1e-4,
        "adam",
    )
    assert config.train.steps % 200 == 0  # an epoch has 200 iterations
    assert learner_class("llsm") is LLSM
