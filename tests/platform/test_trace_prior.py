"""The mean training mask as a constant map."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ffd_continual.measuring.trace_prior import trace_prior
from ffd_continual.scenarios.streams import Scenario


def _parts() -> tuple[Any, Scenario]:
    """Two training masks cover the left half, a third the right; one test mask is the left half, one the right."""
    left, right = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    left[:, :2], right[:, 2:] = 255, 255
    empty = np.zeros((4, 4), np.uint8)
    rows = pd.DataFrame(
        [("train", "a", 1), ("train", "a", 1), ("train", "a", 1), ("train", "a", 0), ("test", "a", 1), ("test", "a", 0),
         ("unseen", "b", 1), ("unseen", "b", 1)],
        columns=["stream", "experience", "label"],
    )  # fmt: skip
    masks = np.stack([left, left, right, empty, left, empty, right, left])
    known = np.array([True] * 7 + [False])
    table = SimpleNamespace(rows=rows, masks=masks, mask_known=known, slot=np.arange(8))
    return table, Scenario(rows, ("a",), ("b",), ("real", "a", "b"), {})


def test_position_alone() -> None:
    prior = trace_prior(*_parts())
    assert prior["test"]["a"] == {"iou": 1.0, "pixel_auc": 1.0}  # two thirds of the masks lie left
    assert prior["unseen"]["b"] == {"iou": 0.0, "pixel_auc": 0.0}  # the face without a known mask does not count


def test_no_masks_no_prior() -> None:
    table, scenario = _parts()
    table.masks = np.zeros((0, 4, 4), np.uint8)
    assert trace_prior(table, scenario) == {}
    table, scenario = _parts()
    table.mask_known[:] = False
    assert trace_prior(table, scenario) == {}


def test_a_share_between() -> None:
    table, scenario = _parts()
    table.masks[2] = table.masks[0]
    table.masks[2][0] = 0  # the third mask lacks the top row: its mean there is 2/3, still above 0.5
    assert trace_prior(table, scenario)["test"]["a"]["iou"] == pytest.approx(1.0)
    assert trace_prior(table, scenario)["test"]["a"]["pixel_auc"] == pytest.approx(1.0)
