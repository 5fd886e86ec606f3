"""`closed()` and `closed_rule()`: what an export is made of judges as the learner and its strategy do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ffd_continual.load import known_methods
from ffd_continual.strategies.learner import Learner
from ffd_continual.strategies.learners.ce import ClosedHead, TypeHead
from ffd_continual.strategies.nearest_mean import NearestMean

HEAVY = {"wavelet"}  # its `closed` is the base's


CASES = [*((name, {}) for name in sorted(set(known_methods(Learner)) - HEAVY)), ("ce", {"classes": "many"})]


@pytest.mark.parametrize(("name", "learn"), CASES)
def test_a_closed_learner_judges_alike(workshop: Any, name: str, learn: dict[str, Any]) -> None:
    learner = workshop.train(name, learn=learn, experiences=2, steps=1).parts.learner.eval()
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        one, two = learner(images), learner.closed()(images)
    assert two.known == one.known
    for field in ("z", "attribution", "novelty"):
        mine, theirs = getattr(one, field), getattr(two, field)
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.allclose(mine, theirs, atol=1e-5), field
    assert one.z.unique().numel() == 5


def test_a_closed_rule_of_means_judges_alike(workshop: Any) -> None:
    parts = workshop.train("plain", "nearest_mean", keep={"exemplars": 8}, experiences=2, steps=1).parts
    assert isinstance(parts.keeper, NearestMean)
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        out = parts.learner.eval()(images)
        wanted = parts.keeper.decide(out)
        assert torch.allclose(parts.keeper.closed_rule()(out), wanted, atol=1e-6)
        assert not torch.allclose(wanted, out.z)
        parts.keeper.labels = torch.zeros_like(parts.keeper.labels)  # no forged mean: the learner's own logit
        assert torch.equal(parts.keeper.closed_rule()(out), out.z)


def test_classes_that_no_type_took_are_left_out() -> None:
    torch.manual_seed(0)
    head = TypeHead(5)
    head.grow(4)
    head.assign(torch.tensor([0, 7, 2]))
    closed = ClosedHead(head, ("two", "seven"))
    feature = torch.randn(6, 5)
    logits = head(feature)
    z, attribution = closed.judge(closed(feature))
    types = logits[:, 1:][:, head.kinds >= 0]
    assert torch.allclose(z, torch.logsumexp(types, 1) - logits[:, 0], atol=1e-6)
    assert attribution is not None
    assert torch.allclose(attribution, torch.softmax(types, 1), atol=1e-6)
    assert attribution.shape == (6, 2)
