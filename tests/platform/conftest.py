from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """Runs set torch's threads and determinism for their process: other tests shall not notice."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


@pytest.fixture
def small_config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    """The plain learner on the tiny faces: the quickest run there is."""
    trunk = {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 2}
    scenario = {**tiny_config["scenario"], "size": 32, "order": ["alpha"], "unseen": []}
    evaluation = {"bootstrap": 0, "samples": 1, "controls": False}
    train = {**tiny_config["train"], "steps": 2, "batch": 8}
    method = {"learner": {"name": "plain", "trunk": trunk}, "strategy": {"name": "naive"}}
    return {"name": "small", "scenario": scenario, "train": train, "evaluation": evaluation, **method}
