"""Equations 1 to 5 of the similarity module against loops over cells, by hand, and in their limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ffd_continual.strategies.learners.similarity import (
    LocalSimilarity,
    binary_cells,
    literal_map,
    pair_loss,
    pair_map,
    pair_targets,
    project,
)


def _module(channels: int, hidden: int) -> LocalSimilarity:
    torch.manual_seed(hidden)
    return LocalSimilarity(channels, hidden).double()


def _loop_map(features: Any, module: LocalSimilarity) -> Any:
    """Equation 1 before the sigmoid: one pair after the other, numbered i * W + j as the cells are read."""
    kernel, bias = module.pair.weight.detach().numpy(), module.pair.bias.detach().numpy()  # type: ignore[union-attr]
    faces, channels, height, width = features.shape
    found = np.zeros((faces, height * width, height * width))
    for b in range(faces):
        for i in range(height):
            for j in range(width):
                for m in range(height):
                    for n in range(width):
                        answers = []
                        for k in range(len(kernel)):
                            answer = bias[k]
                            for c in range(channels):
                                answer += kernel[k, c, 0, 0] * features[b, c, i, j]
                                answer += kernel[k, c, 1, 0] * features[b, c, m, n]
                            answers.append(answer)
                        if module.point is None:
                            logit = answers[0]
                        else:
                            last = module.point.weight.detach().numpy()[0, :, 0, 0]
                            assert module.point.bias is not None
                            logit = float(module.point.bias.detach()[0])
                            for k, answer in enumerate(answers):
                                logit += last[k] * max(0.0, answer)
                        found[b, i * width + j, m * width + n] = logit
    return found


def _loop_loss(logits: Any, masks: Any) -> float:
    """Equations 3 to 5 from binary masks of the map's own size."""
    total, pairs = 0.0, 0
    for logit, mask in zip(logits, masks, strict=True):
        flat = [value for row in mask for value in row]
        for r, first in enumerate(flat):
            for s, second in enumerate(flat):
                truth = 1.0 if abs(first - second) > 0.5 else 0.0
                said = 1.0 / (1.0 + math.exp(-logit[r, s]))
                total -= truth * math.log(said) + (1.0 - truth) * math.log(1.0 - said)
                pairs += 1
    return total / pairs


@pytest.mark.parametrize("hidden", [1, 2, 8])
def test_both_ways_equal_the_loop_over_all_pairs(hidden: int) -> None:
    module = _module(4, hidden)
    features = torch.randn(2, 4, 2, 3, dtype=torch.float64)
    expected = _loop_map(features.numpy(), module)
    assert np.allclose(module(features).detach().numpy(), expected, rtol=0, atol=1e-12)
    literal = literal_map(features, module.pair.weight, module.pair.bias, module._last())  # type: ignore[arg-type]
    assert np.allclose(literal.detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("hidden", [1, 8])
def test_factorised_equals_literal_on_a_large_map_values_and_gradients(hidden: int) -> None:
    module = _module(32, hidden)
    features = torch.randn(2, 32, 5, 6, dtype=torch.float64)
    weights = torch.randn(2, 30, 30, dtype=torch.float64)
    gradients = []
    for literal in (False, True):
        x = features.clone().requires_grad_()
        module.zero_grad()
        made = literal_map(x, module.pair.weight, module.pair.bias, module._last()) if literal else module(x)  # type: ignore[arg-type]
        (torch.tanh(made) * weights).sum().backward()  # type: ignore[no-untyped-call]
        gradients.append([made.detach(), x.grad, *(p.grad.clone() for p in module.parameters())])  # type: ignore[union-attr]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_two_cells_by_hand() -> None:
    """F = [2, -1], w1 = 3, w2 = -1, b = 1/2: logits 4.5, 7.5 / -4.5, -1.5; the first cell alone is forged."""
    features = torch.tensor([[[[2.0, -1.0]]]], dtype=torch.float64)
    kernel = torch.tensor([3.0, -1.0], dtype=torch.float64).view(1, 1, 2, 1)
    first, second = project(features, kernel, torch.tensor([0.5], dtype=torch.float64))
    assert pair_map(first, second, None).tolist() == [[[4.5, 7.5], [-4.5, -1.5]]]
    cells = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert pair_targets(cells).tolist() == [[[0.0, 1.0], [1.0, 0.0]]]
    # log(1 + e^4.5) = 4.511048, log(1 + e^-7.5) = 0.000553, log(1 + e^4.5), log(1 + e^-1.5) = 0.201413; mean 2.306015
    assert float(pair_loss(first, second, None, cells)) == pytest.approx(2.306015, abs=1e-6)


@pytest.mark.parametrize("hidden", [1, 8])
def test_loss_equals_the_loop_for_every_block_size(hidden: int) -> None:
    module = _module(3, hidden)
    features = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    masks = torch.zeros(2, 1, 3, 4, dtype=torch.float64)
    masks[0, 0, 1:, 2:] = 1.0
    expected = _loop_loss(_loop_map(features.numpy(), module), masks[:, 0].numpy())
    known, answers = torch.ones(2, dtype=torch.bool), []
    for block in (1, 5 * 2 * 12 * hidden, 10**9):  # one row at a time, blocks of 5, 5 and 2 rows, everything at once
        module.block = block
        x = features.clone().requires_grad_()
        module.zero_grad()
        loss = module.loss(x, masks, known)
        loss.backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        answers.append([x.grad, *(p.grad.clone() for p in module.parameters())])  # type: ignore[union-attr]
        assert loss.item() == pytest.approx(expected, abs=1e-12)
    for other in answers[1:]:
        assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(answers[0], other, strict=True))


def test_no_tensor_of_all_pairs_exists_where_blocks_are_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    module, largest = _module(3, 4), 0
    module.block = 4 * 2 * 36 * 4  # four rows of 36 cells, two faces, d = 4
    original = F.binary_cross_entropy_with_logits

    def watch(logits: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, logits.shape[1])
        return original(logits, *args, **kwargs)

    monkeypatch.setattr(F, "binary_cross_entropy_with_logits", watch)
    features = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    module.loss(features, torch.rand(2, 1, 6, 6).double(), torch.ones(2).bool()).backward()  # type: ignore[no-untyped-call]
    assert largest == 4


def test_a_single_kernel_cannot_say_that_two_cells_differ_and_two_hidden_channels_can() -> None:
    features = torch.tensor([[[[0.0, 1.0]]]])
    literal = _module(1, 1).float()(features)[0]
    assert float(literal[0, 0] + literal[1, 1]) == pytest.approx(float(literal[0, 1] + literal[1, 0]), abs=1e-6)
    module = _module(1, 2).float()
    with torch.no_grad():
        module.pair.weight.copy_(torch.tensor([[[[1.0], [-1.0]]], [[[-1.0], [1.0]]]]))
        module.pair.bias.zero_()  # type: ignore[union-attr]
        module.point.weight.fill_(20.0)  # type: ignore[union-attr]
        module.point.bias.fill_(-10.0)  # type: ignore[union-attr]
    assert module(features)[0].tolist() == [[-10.0, 10.0], [10.0, -10.0]]
    mask = torch.tensor([[[[0.0, 1.0]]]])
    assert float(module.loss(features, mask, torch.tensor([True]))) < 1e-4


@pytest.mark.parametrize("hidden", [1, 6])
def test_a_symmetric_kernel_gives_a_symmetric_map(hidden: int) -> None:
    module = _module(5, hidden)
    features = torch.randn(1, 5, 3, 3, dtype=torch.float64)
    assert not torch.allclose(module(features), module(features).transpose(1, 2))
    with torch.no_grad():
        module.pair.weight[:, :, 1] = module.pair.weight[:, :, 0]
    assert torch.allclose(module(features), module(features).transpose(1, 2), atol=1e-12)


def test_cells_in_another_order_give_the_same_map_in_that_order_and_the_same_loss() -> None:
    module = _module(5, 4)
    features, mask = torch.randn(1, 5, 2, 4, dtype=torch.float64), torch.rand(1, 1, 2, 4).double().round()
    order = torch.randperm(8)
    shuffled = features.flatten(2)[:, :, order].view_as(features)
    marks = mask.flatten(2)[:, :, order].view_as(mask)
    assert torch.allclose(module(shuffled), module(features)[:, order][:, :, order], atol=1e-12)
    known = torch.ones(1, dtype=torch.bool)
    assert torch.allclose(module.loss(shuffled, marks, known), module.loss(features, mask, known), atol=1e-12)


def test_cells_are_forged_where_more_than_the_share_is_and_targets_ignore_which_side_is_forged() -> None:
    mask = torch.zeros(1, 1, 4, 6)
    mask[0, 0, 0, :3] = 1.0  # 2 of the 4 pixels of the first cell, 1 of the second
    mask[0, 0, 2:, 2:5] = 1.0  # all of the fifth cell, half of the sixth
    assert binary_cells(mask, (2, 3)).tolist() == [[0.0, 0.0, 0.0, 0.0, 1.0, 0.0]]
    assert binary_cells(mask, (2, 3), share=0.2).tolist() == [[1.0, 1.0, 0.0, 0.0, 1.0, 1.0]]
    cells = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    assert torch.equal(pair_targets(cells), pair_targets(1.0 - cells))
    assert pair_targets(cells).sum().item() == 2 * 2 * 2  # ordered pairs of one forged and one real cell
    for whole in (torch.zeros(1, 9), torch.ones(1, 9)):
        assert pair_targets(whole).abs().sum().item() == 0.0


def test_faces_without_a_known_mask_take_no_part() -> None:
    module = _module(3, 4)
    features, mask = torch.randn(3, 3, 4, 4, dtype=torch.float64, requires_grad=True), torch.rand(3, 1, 4, 4).double()
    known = torch.tensor([True, False, True])
    loss = module.loss(features, mask, known)
    assert torch.allclose(loss, module.loss(features[known], mask[known], torch.ones(2, dtype=torch.bool)))
    loss.backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert features.grad[1].abs().sum().item() == 0.0
    assert features.grad[0].abs().sum().item() > 0.0
    nothing = module.loss(features, mask, torch.zeros(3, dtype=torch.bool))
    assert nothing.item() == 0.0
    nothing.backward()  # type: ignore[no-untyped-call]


def test_training_the_module_alone_finds_the_pairs_that_differ() -> None:
    torch.manual_seed(3)
    module = LocalSimilarity(6, 8)
    side = torch.randn(6)
    masks = (torch.rand(16, 1, 4, 4) > 0.6).float()
    features = torch.randn(16, 6, 4, 4) * 0.3 + masks * side.view(1, 6, 1, 1)
    optimizer = torch.optim.Adam(module.parameters(), 0.03)
    known = torch.ones(16, dtype=torch.bool)
    before = float(module.loss(features, masks, known).detach())
    for _ in range(120):
        optimizer.zero_grad()
        loss = module.loss(features, masks, known)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    said = (module(features) > 0).float()
    assert float(loss.detach()) < 0.5 * before
    assert (said == pair_targets(binary_cells(masks, (4, 4)))).float().mean().item() > 0.9
