"""Channel-attention fusion, bilinear pooling (Eq. 1-5 of Jia et al.) and its rivals against loops and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ffd_continual.strategies.learners.bilinear import (
    AttentionFusion,
    BilinearJoin,
    ConcatJoin,
    SumJoin,
    align,
    outer_sum,
    root_unit,
    weighted_sum,
)


def _maps(channels: int, height: int = 3, width: int = 4, seed: int = 0, faces: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(faces, channels, height, width, generator=generator, dtype=torch.float64)


# Attention fusion ---------------------------------------------------------------------------------------------------


def test_fusion_is_the_loop_over_channels() -> None:
    torch.manual_seed(0)
    fusion = AttentionFusion(2, 8).double()
    streams = [_maps(8, seed=1), _maps(8, seed=2)]
    made = fusion(streams).detach().numpy()
    arrays = [stream.numpy() for stream in streams]
    layers = [
        [look.get_parameter(f"{at}.{name}").detach().numpy() for at in (0, 2) for name in ("weight", "bias")]
        for look in fusion.look
    ]
    for face in range(2):
        scores = []
        for stream, (weight1, bias1, weight2, bias2) in zip(arrays, layers, strict=True):
            means = [float(np.mean(stream[face, c])) for c in range(8)]
            hidden = [
                max(0.0, sum(w * m for w, m in zip(row, means, strict=True)) + b)
                for row, b in zip(weight1, bias1, strict=True)
            ]
            scores.append(
                [
                    sum(w * h for w, h in zip(row, hidden, strict=True)) + b
                    for row, b in zip(weight2, bias2, strict=True)
                ]
            )
        for c in range(8):
            first = math.exp(scores[0][c]) / (math.exp(scores[0][c]) + math.exp(scores[1][c]))
            wanted = first * arrays[0][face, c] + (1 - first) * arrays[1][face, c]
            np.testing.assert_allclose(made[face, c], wanted, atol=1e-12)


def test_fusion_by_hand() -> None:
    """Scores 0 and ln 3 weigh 1/4 and 3/4: of 4 and 8 they make 7."""
    streams = [torch.full((1, 1, 2, 2), 4.0), torch.full((1, 1, 2, 2), 8.0)]
    made = weighted_sum(streams, torch.tensor([[[0.0], [math.log(3.0)]]]))
    assert made.flatten().tolist() == pytest.approx([7.0] * 4)


def test_fusion_s_weights_sum_to_one() -> None:
    torch.manual_seed(1)
    fusion = AttentionFusion(2, 16).double()
    one, other = _maps(16, seed=3), _maps(16, seed=4)
    assert torch.allclose(fusion([one, one]), one)
    equal = weighted_sum([one, other], torch.full((2, 2, 16), 0.3, dtype=torch.float64))
    assert torch.allclose(equal, (one + other) / 2)
    sure = torch.stack([torch.full((2, 16), 60.0), torch.zeros(2, 16)], 1).double()
    assert torch.allclose(weighted_sum([one, other], sure), one)
    scores = fusion.scores([one, other])
    assert scores.shape == (2, 2, 16)
    assert torch.allclose(weighted_sum([one, other], scores), weighted_sum([other, one], scores.flip(1)))


# Bilinear pooling ---------------------------------------------------------------------------------------------------


def test_bilinear_pooling_is_the_sum_of_outer_products() -> None:
    dense, wide = _maps(5, seed=1), _maps(7, seed=2)
    made = root_unit(outer_sum(dense, wide)).numpy()
    for face in range(2):
        total = np.zeros((5, 7))
        for y in range(3):
            for x in range(4):
                for i in range(5):
                    for j in range(7):
                        total[i, j] += float(dense[face, i, y, x]) * float(wide[face, j, y, x])
        vector = [math.copysign(math.sqrt(abs(v)), v) for row in total for v in row]
        length = math.sqrt(sum(v * v for v in vector))
        np.testing.assert_allclose(made[face], [v / length for v in vector], atol=2e-5)


def test_bilinear_pooling_by_hand() -> None:
    """Two locations: f_s = (1, 0), (2, 1); f_c = (1, -2, 0), (0, -1, 3). Sum: 1 -4 6 / 0 -1 3, absolute sum 15."""
    dense = torch.tensor([[[[1.0, 2.0]], [[0.0, 1.0]]]])
    wide = torch.tensor([[[[1.0, 0.0]], [[-2.0, -1.0]], [[0.0, 3.0]]]])
    summed = outer_sum(dense, wide)
    assert summed.tolist() == [[1, -4, 6, 0, -1, 3]]
    roots = [1, -2, math.sqrt(6), 0, -1, math.sqrt(3)]
    assert root_unit(summed)[0].tolist() == pytest.approx([r / math.sqrt(15) for r in roots], abs=1e-6)


def test_bilinear_pooling_is_attentive_pooling() -> None:
    """Fig. 6: every entry is H W times the mean of one map weighted by another."""
    dense, wide = _maps(2, seed=5), _maps(3, seed=6)
    made = outer_sum(dense, wide).reshape(2, 2, 3)
    for i in range(2):
        for j in range(3):
            assert torch.allclose(made[:, i, j], 12 * (dense[:, i] * wide[:, j]).mean((1, 2)))


def test_bilinear_pooling_ignores_the_order_of_locations_and_the_scale() -> None:
    dense, wide = _maps(4, seed=7), _maps(6, seed=8)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))

    def shuffled(maps: torch.Tensor) -> torch.Tensor:
        return maps.flatten(2)[:, :, order].reshape(maps.shape)

    pooled = root_unit(outer_sum(dense, wide))
    assert torch.allclose(outer_sum(shuffled(dense), shuffled(wide)), outer_sum(dense, wide))
    assert not torch.allclose(outer_sum(shuffled(dense), wide), outer_sum(dense, wide))  # where things are counts
    assert torch.allclose(root_unit(outer_sum(7.0 * dense, 3.0 * wide)), pooled, atol=1e-4)
    assert torch.allclose(root_unit(outer_sum(-dense, wide)), -pooled)
    assert torch.allclose(pooled.norm(dim=1), torch.ones(2))


def test_the_root_has_a_finite_slope_at_zero() -> None:
    x = torch.zeros(1, 4, requires_grad=True)
    made = root_unit(x)
    made.sum().backward()  # type: ignore[no-untyped-call]
    assert made.tolist() == [[0.0] * 4]
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
    mixed = torch.tensor([[0.0, 2.0, -1e-9]], requires_grad=True)
    root_unit(mixed).square().mul(torch.arange(3.0)).sum().backward()  # type: ignore[no-untyped-call]
    assert mixed.grad is not None
    assert bool(torch.isfinite(mixed.grad).all())


# Meeting ------------------------------------------------------------------------------------------------------------


def test_maps_meet_in_the_middle() -> None:
    """f_s: means of blocks. f_c: 0 4 / 8 12 twice as fine; [0, 4] at half-pixel centres is 0 1 3 4."""
    dense = _maps(3, 16, 16, seed=9)
    wide = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]] * 2, dtype=torch.float64)
    pooled, spread = align(dense, wide, 2)
    assert pooled.shape == (2, 3, 4, 4)
    for y in range(4):
        for x in range(4):
            block = dense[:, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            assert torch.allclose(pooled[:, :, y, x], block.sum((2, 3)) / 16)
    rows = [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    assert spread[0, 0].tolist() == rows


@pytest.mark.parametrize("meeting", [1, 2, 4, 8])
def test_every_meeting_keeps_constants_and_sizes(meeting: int) -> None:
    dense, wide = torch.full((1, 2, 16, 16), 3.0), torch.full((1, 5, 2, 2), 4.0)
    pooled, spread = align(dense, wide, meeting)
    assert pooled.shape[-2:] == spread.shape[-2:] == (2 * meeting, 2 * meeting)
    assert bool((pooled == 3.0).all())
    assert bool((spread == 4.0).all())


# Joins --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_joins_are_their_formulas() -> None:
    torch.manual_seed(2)
    dense, wide = _maps(4, seed=10), _maps(6, seed=11)
    bilinear, summed, beside = BilinearJoin(4, 6), SumJoin(4, 6).double(), ConcatJoin(4, 6).double()
    for face in range(2):
        a, b = dense[face].reshape(4, 12), wide[face].reshape(6, 12)
        vector = torch.cat([(a[i] * b[j]).sum()[None] for i in range(4) for j in range(6)])
        vector = vector.sign() * vector.abs().sqrt()
        z = (bilinear.head.weight[0].double() * vector / vector.norm()).sum() + bilinear.head.bias.double()
        assert float(bilinear(dense, wide)[face]) == pytest.approx(float(z), abs=1e-5)

        kernels = [conv.weight[:, :, 0, 0] for conv in (summed.from_dense, summed.from_wide)]
        assert summed.from_dense.bias is not None
        assert summed.from_wide.bias is not None
        mixed = (kernels[0] @ a + kernels[1] @ b).mean(1) + summed.from_dense.bias + summed.from_wide.bias
        assert float(summed(dense, wide)[face]) == pytest.approx(
            float(F.linear(mixed, summed.head.weight, summed.head.bias))
        )

        means = [float(m.mean()) for m in (*a, *b)]
        z_beside = sum(w * m for w, m in zip(beside.head.weight[0].tolist(), means, strict=True))
        assert float(beside(dense, wide)[face]) == pytest.approx(z_beside + float(beside.head.bias))


def test_only_bilinear_pooling_sees_where_the_two_maps_agree() -> None:
    """A map moved within itself: the direct sum and the concatenation cannot tell, bilinear pooling can."""
    torch.manual_seed(3)
    dense, wide = _maps(4, seed=12).float(), _maps(6, seed=13).float()
    moved = dense.roll(1, 3)
    for join, sees in ((BilinearJoin(4, 6), True), (SumJoin(4, 6), False), (ConcatJoin(4, 6), False)):
        same = torch.allclose(join(moved, wide), join(dense, wide), atol=1e-5)
        assert same is not sees
