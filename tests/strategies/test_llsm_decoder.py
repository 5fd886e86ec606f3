"""The localisation module, its channel attention and equation 6 against loops, by hand, and in their limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.decoder import CrossLevelAttention, DecoderStage, LocalisationModule, mask_loss


def _loop_weights(module: CrossLevelAttention, previous: Any) -> Any:
    """Adaptive pooling to 4 x 4, a 4 x 4 convolution, ReLU, a 1 x 1 convolution, a sigmoid: one number at a time."""
    kernel, bias = (p.detach().numpy() for p in (module.squeeze.weight, module.squeeze.bias))  # type: ignore[union-attr]
    last, shift = (p.detach().numpy() for p in (module.excite.weight, module.excite.bias))  # type: ignore[union-attr]
    faces, channels, height, width = previous.shape
    answers = np.zeros((faces, len(last)))
    for b in range(faces):
        pooled = np.zeros((channels, 4, 4))
        for c in range(channels):
            for i in range(4):
                for j in range(4):
                    values = []
                    for y in range(i * height // 4, -(-(i + 1) * height // 4)):
                        for x in range(j * width // 4, -(-(j + 1) * width // 4)):
                            values.append(previous[b, c, y, x])
                    pooled[c, i, j] = sum(values) / len(values)
        inner = []
        for k in range(len(kernel)):
            total = bias[k]
            for c in range(channels):
                for i in range(4):
                    for j in range(4):
                        total += kernel[k, c, i, j] * pooled[c, i, j]
            inner.append(max(0.0, total))
        for a in range(len(last)):
            total = shift[a]
            for k, value in enumerate(inner):
                total += last[a, k, 0, 0] * value
            answers[b, a] = 1.0 / (1.0 + math.exp(-total))
    return answers


@pytest.mark.parametrize("side", [(4, 4), (7, 9), (2, 3), (1, 1)])
def test_attention_equals_the_loop_and_multiplies_each_channel(side: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module = CrossLevelAttention(12, 5).double()
    previous, current = torch.randn(2, 5, *side).double(), torch.randn(2, 12, 6, 5).double()
    weights = _loop_weights(module, previous.numpy())
    made = module(current, previous)
    assert np.allclose(module.weights(previous).detach().numpy()[:, :, 0, 0], weights, atol=1e-12)
    for b in range(2):
        for c in range(12):
            assert torch.allclose(made[b, c], current[b, c] * weights[b, c], atol=1e-12)


def test_attention_by_hand() -> None:
    """B = 1 everywhere, a kernel of 1/8: 16 / 8 = 2; times 1, minus 2, sigmoid(0) = 1/2; times -1: sigmoid(-4)."""
    module = CrossLevelAttention(8, 1)
    with torch.no_grad():
        module.squeeze.weight.fill_(0.125)
        module.squeeze.bias.zero_()  # type: ignore[union-attr]
        module.excite.weight.zero_()
        module.excite.weight[0, 0], module.excite.weight[1, 0] = 1.0, -1.0
        module.excite.bias.fill_(-2.0)  # type: ignore[union-attr]
    weights = module.weights(torch.ones(1, 1, 8, 8)).flatten()
    assert weights[0].item() == pytest.approx(0.5)
    assert weights[1].item() == pytest.approx(1.0 / (1.0 + math.exp(4.0)))
    assert module.weights(torch.full((1, 1, 8, 8), -1.0)).flatten()[0].item() == pytest.approx(0.1192029, abs=1e-6)


@pytest.mark.parametrize(("attention", "feels"), [("stage", "previous"), ("skip", "skip"), ("none", "")])
def test_a_stage_weighs_its_convolved_map_by_the_configured_source(attention: str, feels: str) -> None:
    torch.manual_seed(1)
    stage = DecoderStage(6, 4, 8, attention).double().eval()
    previous, skip = torch.randn(1, 6, 3, 3).double(), torch.randn(1, 4, 5, 7).double()
    raised = torch.nn.functional.interpolate(previous, size=(5, 7), mode="bilinear", align_corners=False)
    mixed = stage.mix(torch.cat([raised, skip], 1))
    made = stage(previous, skip)
    assert made.shape == (1, 8, 5, 7)
    if not feels:
        assert torch.equal(made, mixed)
        return
    assert stage.attention is not None
    source = {"previous": previous, "skip": skip}[feels]
    weights = _loop_weights(stage.attention, source.numpy())
    assert torch.allclose(made, mixed * torch.from_numpy(weights)[:, :, None, None], atol=1e-12)


def test_stages_go_from_the_coarsest_level_up_one_skip_each() -> None:
    torch.manual_seed(2)
    channels, sides = [3, 5, 7, 9], [16, 8, 4, 2]
    levels = [torch.randn(2, c, s, s) for c, s in zip(channels, sides, strict=True)]
    for widths, finest in (((10,), 4), ((10, 8), 8), ((10, 8, 6), 16)):
        module = LocalisationModule(channels, widths, "stage")
        last, logits = module(levels)
        assert last.shape == (2, widths[-1], finest, finest)
        assert logits.shape == (2, 1, finest, finest)
        stages: Any = module.stages
        assert [s.mix[0].in_channels for s in stages] == [9 + 7, 10 + 5, 8 + 3][: len(widths)]
    for wrong in ((), (1, 1, 1, 1)):
        with pytest.raises(FFDError, match="4 levels"):
            LocalisationModule(channels, wrong, "stage")
    with pytest.raises(FFDError, match="attention"):
        LocalisationModule(channels, (4,), "both")


def test_mask_loss_equals_the_loop_over_the_pixels_of_known_masks() -> None:
    torch.manual_seed(3)
    logits = torch.randn(3, 1, 5, 4).double()
    mask = torch.rand(3, 1, 5, 4).double()
    known = [True, False, True]
    total, count = 0.0, 0
    for b in range(3):
        for y in range(5):
            for x in range(4):
                if known[b]:
                    said = 1.0 / (1.0 + math.exp(-float(logits[b, 0, y, x])))
                    total -= math.log(said) if float(mask[b, 0, y, x]) > 0.5 else math.log(1.0 - said)
                    count += 1
    assert mask_loss(logits, mask, torch.tensor(known)).item() == pytest.approx(total / count, abs=1e-12)
    assert mask_loss(logits, mask, torch.zeros(3, dtype=torch.bool)).item() == 0.0


def test_mask_loss_up_samples_the_logits_to_the_mask() -> None:
    """One logit of 2 for a mask of 3 x 3 with one forged pixel: (8 log(1 + e^2) + log(1 + e^-2)) / 9 = 1.904706."""
    mask = torch.zeros(1, 1, 3, 3)
    mask[0, 0, 1, 1] = 1.0
    loss = mask_loss(torch.full((1, 1, 1, 1), 2.0), mask, torch.tensor([True]))
    assert loss.item() == pytest.approx(1.904706, abs=1e-6)
    certain = torch.where(mask > 0.5, 40.0, -40.0)
    assert mask_loss(certain, mask, torch.tensor([True])).item() < 1e-12
