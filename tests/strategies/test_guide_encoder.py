"""The frozen encoders of the clusters, masked-image modelling, and the clusters of a stream."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.guide_clusters import FaceClusters
from ffd_continual.strategies.learners.self_supervised import (
    Encoded,
    EncoderConfig,
    MaskedEncoder,
    build_encoder,
    encode_faces,
    masked_error,
    patch_mask,
)
from ffd_continual.strategies.learners.trunk import TrunkConfig

SMALL = TrunkConfig(backbone="test_efficientnet", weights="none")


def _faces(count: int, side: int = 32, seed: int = 0) -> torch.Tensor:
    """Bytes: a tinted disc on a tinted ground, both smooth, so that a part tells of the rest."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.linspace(-1, 1, side)
    disc = (at[:, None] ** 2 + at**2 < 0.5).float()
    ground, tint = torch.rand(2, count, 3, 1, 1, generator=generator)
    slope = torch.rand(count, 1, 1, 1, generator=generator) * at * 0.2
    faces: torch.Tensor = (ground * (1 - disc) + tint * disc + slope).clamp(0, 1)
    return (faces * 255).round().to(torch.uint8)


def test_the_mask_covers_a_fixed_share_of_whole_patches_anywhere() -> None:
    mask = patch_mask(400, 24, 8, 0.6, torch.Generator().manual_seed(0))
    assert mask.shape == (400, 1, 24, 24)
    counts = torch.zeros(3, 3)
    for picture in mask[:, 0]:
        covered = 0
        for row in range(3):
            for column in range(3):
                patch = picture[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                assert bool(patch.all()) or not bool(patch.any())
                covered += bool(patch.all())
                counts[row, column] += float(patch.all())
        assert covered == 6  # ceil(.6 * 9)
    assert bool(((counts / 400 - 6 / 9).abs() < 0.1).all())


def test_the_error_counts_covered_pixels_only_by_hand() -> None:
    pictures = torch.zeros(1, 3, 2, 2)
    predicted = torch.tensor([[[1.0, 50.0], [50.0, 2.0]]]).expand(1, 3, 2, 2)
    mask = torch.tensor([[[[True, False], [False, True]]]])
    assert float(masked_error(predicted, pictures, mask)) == pytest.approx(1.5)  # (1 + 2) / 2 in each channel


def test_masked_modelling_learns_held_out_faces_and_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(kind="mim", mim_patch=8, mim_stages=4, mim_steps=60, mim_lr=5e-3), SMALL)
    assert isinstance(encoder, MaskedEncoder)
    assert not encoder.ready
    encoder.learn(_faces(120))
    before, after = encoder.errors.tolist()
    said = capsys.readouterr().out
    assert f"{before:.3f} -> {after:.3f}" in said
    assert "108 faces" in said
    assert after < 0.7 * before
    # A network that has learnt nothing but the mean picture stays above it.
    values = (_faces(120).float() / 255.0 - encoder.trunk.mean) / encoder.trunk.std
    held = torch.arange(120) % 10 == 9
    mean = values[~held].mean(0, keepdim=True).expand(12, -1, -1, -1)
    whole = torch.ones(12, 1, 32, 32, dtype=torch.bool)
    assert after < 0.8 * float(masked_error(mean, values[held], whole))

    weights = {k: v.clone() for k, v in encoder.state_dict().items()}
    assert encoder.ready
    assert not any(p.requires_grad for p in encoder.parameters())
    encoder.train()
    features = encoder(_faces(4, seed=1).float() / 255.0)
    assert torch.allclose(features.norm(dim=1), torch.ones(4))
    assert all(torch.equal(v, weights[k]) for k, v in encoder.state_dict().items())
    again = build_encoder(encoder.config, SMALL)
    again.load_state_dict(weights)
    assert again.ready
    assert torch.equal(again(_faces(4, seed=1).float() / 255.0), features)


class _Batch:
    """What `encode_faces` reads of a batch."""

    def __init__(self, first: int, pictures: torch.Tensor):
        self.image = pictures.float() / 255.0
        self.row = torch.arange(first, first + len(pictures))
        self.forgery = self.row % 3
        self.experience = torch.zeros_like(self.row)


def test_every_face_is_encoded_in_order_also_by_an_encoder_that_learns_first() -> None:
    faces: list[Any] = [_Batch(10 * i, _faces(10, seed=i)) for i in range(4)]
    for kind, most in (("trunk", 2048), ("mim", 2048), ("mim", 15)):
        torch.manual_seed(1)
        encoder = build_encoder(EncoderConfig(kind=kind, mim_patch=8, mim_stages=4, mim_steps=2), SMALL)
        parts = list(encode_faces(encoder, faces, most))
        assert torch.cat([part.row for part in parts]).tolist() == list(range(40))
        for part, batch in zip(parts, faces, strict=True):
            assert torch.allclose(part.features, encoder(batch.image), atol=1e-5)
            assert torch.equal(part.forgery, batch.forgery)


def test_kept_features_hold_no_pictures_to_cluster() -> None:
    batch: Any = _Batch(0, _faces(2))
    batch.image = torch.zeros(2, 0)
    with pytest.raises(FFDError, match=r"train\.kept_views"):
        list(encode_faces(build_encoder(EncoderConfig(), SMALL), [batch], 10))


def test_any_backbone_with_weights_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = timm.create_model("test_vit", num_classes=0)
    file = tmp_path / "face_simmim.safetensors"
    save_file(model.state_dict(), file)
    encoder = build_encoder(EncoderConfig(kind="timm", model="test_vit", file=str(file)), SMALL)
    assert "face_simmim.safetensors" in encoder.title
    assert encoder.side(32) == 160  # the model's own input size
    images = _faces(3, side=160).float() / 255.0
    cfg: Any = model.pretrained_cfg
    mean, std = (torch.tensor(cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(model.eval()((images - mean) / std), dim=1)
    assert torch.allclose(encoder(images), wanted, atol=1e-5)

    state = dict(list(model.state_dict().items())[1:])
    save_file(state, file)
    with pytest.raises(FFDError, match="lacks 1 of the"):
        build_encoder(EncoderConfig(kind="timm", model="test_vit", file=str(file)), SMALL)
    with pytest.raises(FFDError, match="no readable safetensors"):
        build_encoder(EncoderConfig(kind="timm", model="test_vit", file=str(tmp_path / "none")), SMALL)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (EncoderConfig(kind="simclr"), "learner.encoder.kind"),
        (EncoderConfig(kind="timm"), "learner.encoder.model"),
        (EncoderConfig(kind="mim", mim_share=1.0), "mim_share"),
    ],
)
def test_what_is_no_encoder_is_refused_by_name(config: EncoderConfig, words: str) -> None:
    with pytest.raises(FFDError, match=words):
        build_encoder(config, SMALL)


def _encoded(rows: list[int], features: list[list[float]]) -> Encoded:
    at = torch.tensor(rows)
    return Encoded(at, at % 2, torch.zeros_like(at), torch.tensor(features))


def _at(angle: float) -> list[float]:
    return [math.cos(math.radians(angle)), math.sin(math.radians(angle))]


def test_clusters_are_made_anew_and_faces_out_of_reach_follow() -> None:
    torch.manual_seed(0)
    faces = FaceClusters()
    first = _encoded([0, 1, 2, 3, 6, 7], [_at(a) for a in (0, 2, 4, 90, 92, 94)])
    faces.note(first.row, first.forgery)
    faces.make(first, 500, 3)  # no more than 6 // 3 clusters
    assert len(faces.centres) == 2
    assert faces.domain.tolist() == [0, 1, 0, 1, -1, -1, 0, 1]
    low, high = int(faces.cluster[0]), int(faces.cluster[3])
    assert low != high
    assert faces.cluster.tolist() == [low] * 3 + [high] + [-1, -1] + [high] * 2
    second = _encoded([0, 8, 9, 10, 11, 12], [_at(a) for a in (1, 3, 10, 180, 182, 184)])
    faces.note(second.row, second.forgery)
    faces.make(second, 2, 1)
    near, far = int(faces.cluster[8]), int(faces.cluster[12])
    # 90 degrees is nearer to about 5 than to 182 degrees: rows 3, 6 and 7 go with the near cluster.
    assert faces.cluster.tolist() == [near] * 4 + [-1, -1] + [near] * 4 + [far] * 3
    assert len(faces) == 11
    fresh = FaceClusters()
    fresh.load_state_dict(faces.state_dict())
    assert torch.equal(fresh.cluster, faces.cluster)
    assert torch.equal(fresh.domain, faces.domain)
    assert torch.equal(fresh.centres, faces.centres)
