"""The wavelet dual-branch: HRNet opened at its stem, Eq. 6, every switch of the ablation, its configurations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml

from ffd_continual.config import RunConfig, apply_sets, config_from, read_yaml
from ffd_continual.runs.detector import score_faces
from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.bilinear import BilinearJoin
from ffd_continual.strategies.learners.hrnet import ClassificationBranch, SegmentationBranch
from ffd_continual.strategies.learners.swd import SWD
from ffd_continual.strategies.learners.wavelet import Wavelet, WaveletConfig, segmentation_loss

GRIDS = Path(__file__).resolve().parents[2] / "configs" / "grids"
SMALL = {"backbone": "hrnet_w18_small", "weights": "none"}


def _made(**settings: Any) -> Wavelet:
    torch.manual_seed(0)
    return Wavelet(WaveletConfig(**{**SMALL, **settings}))


@pytest.fixture(scope="module")
def full() -> Wavelet:
    return _made()


def _shapes(learner: Wavelet) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in learner.named_parameters()}


def _batch(faces: int = 4, side: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(1)
    none, unknown = torch.zeros(faces, 0), torch.zeros(faces, dtype=torch.bool)
    fields = dict.fromkeys(Batch._fields, none)
    fields |= {
        "image": torch.rand(faces, 3, side, side, generator=generator),
        "target": torch.arange(faces) % 2,
        "mask": (torch.rand(faces, 1, side, side, generator=generator) > 0.5).float(),
        "mask_known": torch.arange(faces) != 1,
    }
    fields |= dict.fromkeys(("pair_known", "pseudo_known", "other_known"), unknown)
    return Batch(**fields)


# HRNet --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_without_waves_the_branches_are_timm_s_hrnet() -> None:
    torch.manual_seed(5)
    whole: Any = timm.create_model("hrnet_w18_small", num_classes=0).eval()
    torch.manual_seed(5)
    wide = ClassificationBranch("hrnet_w18_small", "none", 0, "attention").eval()
    torch.manual_seed(5)
    dense = SegmentationBranch("hrnet_w18_small", "none", 0, "attention").eval()
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(wide(images, None), whole.forward_features(images))
    stem = whole.act2(whole.bn2(whole.conv2(whole.act1(whole.bn1(whole.conv1(images))))))
    maps = whole.stages(stem)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (128, 2, 2)]
    for made, wanted in zip(dense.stages(images, None), maps, strict=True):
        assert torch.equal(made, wanted)
    assert dense.channels == 16 + 32 + 64 + 128
    assert dense(images, None).shape == (2, 240, 16, 16)
    assert dense.judge(dense(images, None)).shape == (2, 1, 16, 16)


def test_two_branches_of_one_architecture_share_nothing(full: Wavelet) -> None:
    assert full.segmentation is not None
    one = dict(full.classification.stages.named_parameters())
    other = dict(full.segmentation.stages.named_parameters())
    assert {n: p.shape for n, p in one.items()} == {n: p.shape for n, p in other.items()}
    assert not {p.data_ptr() for p in one.values()} & {p.data_ptr() for p in other.values()}
    assert not torch.equal(one["stem.0.weight"], other["stem.0.weight"])


@torch.no_grad()
def test_the_waves_enter_by_a_stem_of_their_own_before_the_first_stage() -> None:
    torch.manual_seed(0)
    branch = ClassificationBranch("hrnet_w18_small", "none", 36, "sum").eval().stages
    assert branch.wave_stem is not None
    assert branch.wave_stem[0].weight.shape == (64, 36, 3, 3)
    assert branch.stem[0].weight.shape == (64, 3, 3, 3)
    images, bands = torch.rand(1, 3, 32, 32), torch.rand(1, 36, 32, 32)
    assert torch.equal(branch.enter(images, bands), branch.stem(images) + branch.wave_stem(bands))
    attentive = ClassificationBranch("hrnet_w18_small", "none", 36, "attention").eval().stages
    assert attentive.fusion is not None
    assert attentive.wave_stem is not None
    low = torch.minimum(attentive.stem(images), attentive.wave_stem(bands))
    high = torch.maximum(attentive.stem(images), attentive.wave_stem(bands))
    fused = attentive.enter(images, bands)
    assert bool(((fused >= low - 1e-6) & (fused <= high + 1e-6)).all())  # a weighted mean, channel by channel


# The learner --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_what_the_learner_says(full: Wavelet) -> None:
    full.eval()
    images = torch.rand(3, 3, 64, 64)
    out = full(images)
    assert out.z.shape == (3,)
    assert out.features["common"].shape == (3, 2048)
    assert out.maps["trace"].shape == (3, 1, 16, 16)
    x = (images - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    bands = SWD("haar", 3)(x)
    assert bands.shape == (3, 36, 64, 64)
    assert torch.allclose(full.classification(x, bands).mean((2, 3)), out.features["common"], atol=1e-5)
    assert isinstance(full.join, BilinearJoin)
    assert full.join.head.weight.shape == (1, 240 * 2048)
    full.train()


def _bce(z: float, y: float) -> float:
    return max(z, 0.0) - z * y + math.log1p(math.exp(-abs(z)))


def test_the_loss_is_eq_6() -> None:
    batch = _batch()
    out, losses = _made(bilinear_weight=0.5, segmentation_weight=2.0).step(batch)
    targets = batch.target.tolist()
    for name, z, weight in (("classification", out.features["z_classification"], 1.0), ("joined", out.z, 0.5)):
        wanted = sum(_bce(a, float(y)) for a, y in zip(z.tolist(), targets, strict=True)) / len(targets)
        assert float(losses[name].detach()) == pytest.approx(weight * wanted, rel=1e-5)
    full_size = torch.nn.functional.interpolate(out.maps["trace"].detach(), size=(32, 32), mode="bilinear")
    terms = [
        _bce(float(full_size[i, 0, y, x]), float(batch.mask[i, 0, y, x]))
        for i in (0, 2, 3)  # face 1 has no known mask
        for y in range(32)
        for x in range(32)
    ]
    assert float(losses["segmentation"].detach()) == pytest.approx(2.0 * sum(terms) / len(terms), rel=1e-4)
    assert set(losses) == {"classification", "joined", "segmentation"}


def test_segmentation_loss_by_hand_and_without_masks() -> None:
    """Logit 0 everywhere costs ln 2 a pixel, whatever the mask; ln 3 on an empty mask ln 4."""
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    known = torch.tensor([True, True])
    logits = torch.tensor([0.0, math.log(3.0)]).view(2, 1, 1, 1).requires_grad_()
    loss = segmentation_loss(logits, mask, known)
    assert float(loss.detach()) == pytest.approx((math.log(2.0) + math.log(4.0)) / 2)
    nothing = segmentation_loss(logits, mask, torch.tensor([False, False]))
    nothing.backward()  # type: ignore[no-untyped-call]
    assert float(nothing.detach()) == 0.0
    assert logits.grad is not None
    assert not bool(logits.grad.any())


def test_weights_of_zero_leave_the_classification_branch_alone() -> None:
    learner = _made(bilinear_weight=0.0, segmentation_weight=0.0)
    _, losses = learner.step(_batch())
    sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    assert learner.segmentation is not None
    assert not any(bool(p.grad.any()) for p in learner.segmentation.parameters() if p.grad is not None)
    assert any(bool(p.grad.any()) for p in learner.classification.parameters() if p.grad is not None)


def test_every_parameter_of_the_full_model_is_trained(full: Wavelet) -> None:
    full.zero_grad()
    _, losses = full.step(_batch(faces=6))
    sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    assert [name for name, p in full.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("settings", "gone", "come"),
    [
        ({"wavelet": "none"}, "stages.wave_stem.", ""),
        ({"wavelet": "none"}, "stages.fusion.", ""),
        ({"fusion": "sum"}, "stages.fusion.", ""),
        ({"dual": False}, "segmentation.", ""),
        ({"dual": False}, "join.", ""),
        ({"join": "sum"}, "", "join.from_wide."),
        ({"backbone": "hrnet_w18_small_v2"}, "", "stages.layer1.1."),
    ],
)
def test_a_switch_changes_the_parameters(full: Wavelet, settings: dict[str, Any], gone: str, come: str) -> None:
    switched = _made(**settings)
    before, after = _shapes(full), _shapes(switched)
    if gone:
        assert any(gone in name for name in before)
        assert not any(gone in name for name in after)
    if come:
        assert not any(come in name for name in before)
        assert any(come in name for name in after)


def test_switches_change_the_answer_and_the_terms(full: Wavelet) -> None:
    batch = _batch()
    full_terms = set(full.step(batch)[1])
    answers: dict[str, list[float]] = {}
    for name, settings in (
        ("haar", {}),
        ("rbio", {"wavelet": "rbio2.2"}),
        ("meeting", {"meeting": 1}),
        ("concat", {"join": "concat"}),
        ("single", {"dual": False}),
    ):  # fmt: skip
        learner = _made(**settings)
        out, losses = learner.step(batch)
        answers[name] = out.z.tolist()
        assert set(losses) == ({"classification"} if name == "single" else full_terms)
        assert learner.needs == (frozenset() if name == "single" else {"mask"})
    assert len({tuple(z) for z in answers.values()}) == len(answers)
    one = _made(levels=1)
    stem = one.classification.stages.wave_stem
    assert stem is not None
    assert stem.get_parameter("0.weight").shape[1] == 12
    assert _shapes(_made(join="concat"))["join.head.weight"] == (1, 240 + 2048)


# Bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "resnet18"}, "hrnet_w18"),
        ({"weights": "package"}, "'timm'"),
        ({"wavelet": "db2"}, r"rbio1\.3"),
        ({"fusion": "max"}, "'attention' or 'sum'"),
        ({"join": "product"}, "bilinear, sum, concat"),
        ({"meeting": 3}, "1, 2, 4 or 8"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(FFDError, match=words):
        _made(**settings)


def test_sides_that_do_not_fit_are_named(full: Wavelet) -> None:
    with pytest.raises(FFDError, match=r"48 x 48.*multiples of 32.*scenario\.size to 32"):
        full(torch.rand(1, 3, 48, 48))


def test_weights_that_cannot_be_fetched_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(FFDError, match=r"learner\.weights=none"):
        Wavelet(WaveletConfig())


def test_data_without_masks_are_refused_before_training(workshop: Any, tmp_path: Path) -> None:
    table = pd.read_csv(workshop.manifest, keep_default_na=False)
    table["path"] = [str(workshop.manifest.parent / path) for path in table["path"]]
    table.drop(columns=["mask", "pair"]).to_csv(tmp_path / "bare.csv", index=False)
    bare = type(workshop)(tmp_path / "bare.csv", workshop.cache)
    with pytest.raises(FFDError, match="column mask"):
        bare.parts("wavelet")
    _, parts = bare.parts("wavelet", learn={"dual": False})
    assert not parts.sources.needs


# In a run -----------------------------------------------------------------------------------------------------------


def test_the_found_pixels_are_measured(workshop: Any) -> None:
    run = workshop.train("wavelet", experiences=1, steps=1)
    rows = run.parts.scenario.index("test", "alpha")
    scores = score_faces(run.parts.learner, run.parts.keeper.decide, run.agent.faces(rows))
    forged = scores["label"] == 1
    assert scores.loc[forged, "iou"].between(0, 1).all()
    assert scores.loc[forged, "pixel_auc"].between(0, 1).all()
    assert scores.loc[~forged, ["iou", "pixel_auc"]].isna().all(axis=None)


@pytest.mark.slow
def test_it_learns_and_finds_the_pixels(workshop: Any) -> None:
    run = workshop.train("wavelet", experiences=1, steps=40, batch=16)
    first, last = run.losses[:5], run.losses[-5:]
    for name in ("classification", "joined", "segmentation"):
        assert np.mean([s[name] for s in last]) < 0.8 * np.mean([s[name] for s in first]), name
    rows = run.parts.scenario.index("test", "alpha")
    scores = score_faces(run.parts.learner, run.parts.keeper.decide, run.agent.faces(rows))
    assert scores["pixel_auc"].mean() > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "dual"), [("hrnet_w18", True), ("hrnet_w32", False)])
def test_the_paper_s_backbones_take_a_step(backbone: str, dual: bool) -> None:
    learner = _made(backbone=backbone, dual=dual)
    out, losses = learner.step(_batch(side=64))
    sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters() if p.grad is not None)
    assert out.features["common"].shape == (4, 2048)
    if learner.segmentation is not None:
        assert learner.segmentation.channels == 270


# Configurations -----------------------------------------------------------------------------------------------------


def test_the_paper_s_configuration() -> None:
    config = config_from(read_yaml("wavelet_ffpp"))
    assert config.learner.config == WaveletConfig()
    train = config.train
    assert (train.optimizer, train.lr, train.batch, config.scenario.size) == ("sgd", 0.01, 128, 224)
    assert (train.schedule, train.warmup) == ("steps", 0.0)
    epoch = train.steps / 17
    assert [round(at * train.steps / epoch) for at in train.decay_at] == [10, 13, 15]
    assert (config.scenario.masks, config.scenario.relabel_below) == ("ssim", 8)
    assert config_from(read_yaml("wavelet_small")).learner.config.weights == "none"


def _cells(grid: str) -> dict[str, RunConfig]:
    values = yaml.safe_load((GRIDS / f"{grid}.yaml").read_text(encoding="utf-8"))
    base = read_yaml(values["base"])
    return {
        method: config_from(apply_sets(base, [*values.get("set", []), *sets]))
        for method, sets in values["methods"].items()
    }


@pytest.mark.parametrize("grid", ["wavelet_ablation_ffpp", "wavelet_ablation_small"])
def test_the_grids_hold_every_row_of_the_ablation_tables(grid: str) -> None:
    settings = [cell.learner.config for cell in _cells(grid).values()]
    assert len({repr(s) for s in settings}) == len(settings)
    large = {"hrnet_w32", "hrnet_w18_small_v2"}
    rows = {(s.backbone in large, s.wavelet, s.dual, s.join) for s in settings}
    single = "bilinear"  # no branches to join
    table_3 = {
        (False, "none", False, single), (False, "haar", False, single), (True, "haar", False, single),
        (False, "haar", True, "sum"), (False, "haar", True, "bilinear"),
    }  # fmt: skip
    assert table_3 <= rows
    assert {s.wavelet for s in settings} >= {"haar", "rbio2.2"}  # Table IV
