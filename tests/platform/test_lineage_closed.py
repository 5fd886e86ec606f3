"""Closed modules are asked once about a face, and what is looked up is what they would say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ffd_continual.config import fill
from ffd_continual.lineage.closed import ClosedModules
from ffd_continual.runs.modules import ask
from ffd_continual.strategies.learner import Output
from ffd_continual.strategies.learners.iin import IIN, IINConfig
from ffd_continual.strategies.learners.inter import IntraModule
from ffd_continual.strategies.teacher import Teacher

TINY = {"trunk": {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 4}, "local": 16, "queue": 64}


@pytest.fixture
def learner() -> IIN:
    torch.manual_seed(0)
    made = IIN(fill(IINConfig, TINY))
    for name in ("swap", "warp", "morph"):
        made.begin(name)
    with torch.no_grad():
        for module in made.intra:
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        for module in made.intra[:1]:  # the second has met no masks, and has no say about places
            assert isinstance(module, IntraModule)
            module.evidence.weight.add_(torch.randn_like(module.evidence.weight))
            module.evidence.met.fill_(True)
    return made.eval()


@pytest.fixture
def frozen(learner: IIN) -> Tensor:
    return learner.frozen(torch.rand(70, 3, 64, 64, generator=torch.Generator().manual_seed(2)))


@torch.no_grad()
def _judged(learner: IIN, frozen: Tensor) -> Output:
    return learner.judge(frozen)


def _asked(learner: IIN) -> list[int]:
    """Counts, from now on, how often the stages of each module are run."""
    counts = [0] * len(learner.intra)

    def count(at: int) -> None:
        def hook(module: object, given: object, answer: object) -> None:
            counts[at] += 1

        learner.intra[at].stages.register_forward_hook(hook)  # type: ignore[union-attr]

    for at in range(len(counts)):
        count(at)
    return counts


def test_a_file_of_an_older_version_is_asked_anew(learner: IIN, frozen: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "closed.npz"
    keys = np.zeros((1, 16), np.uint8)
    np.savez(path, faces=keys, modules=keys, z=np.zeros((1, 1), np.float32))
    plain, closed = _judged(learner, frozen[:64]), ClosedModules(path)
    with closed.answering(learner):
        torch.testing.assert_close(_judged(learner, frozen[:64]).z, plain.z, rtol=0, atol=0)
        assert len(closed.faces) == 64
    closed.save()
    assert len(ClosedModules(path).faces) == 64


def test_looking_up_gives_what_asking_gives(learner: IIN, frozen: Tensor, tmp_path: Path) -> None:
    parts = (frozen[:64], frozen[64:])
    plain = [_judged(learner, part) for part in parts]
    closed, other = ClosedModules(tmp_path / "closed.npz"), ClosedModules(tmp_path / "other.npz")
    with closed.answering(learner):
        first, again = ([_judged(learner, part) for part in parts] for _ in range(2))
    assert first[0].known == plain[0].known == ("swap", "warp", "morph")
    for name in ("z", "attribution", "novelty"):
        made, wanted = getattr(first[0], name), getattr(plain[0], name)
        torch.testing.assert_close(made, wanted, rtol=0, atol=0)  # asked in a batch of 64, as without the store
    for key, wanted in plain[0].features.items():
        torch.testing.assert_close(first[0].features[key], wanted, rtol=0, atol=0)
    torch.testing.assert_close(first[0].maps["trace"], plain[0].maps["trace"], rtol=0, atol=0)
    torch.testing.assert_close(first[1].z, plain[1].z, rtol=1e-4, atol=1e-6)  # a batch of 6 may differ in last bits
    torch.testing.assert_close(first[1].maps["trace"], plain[1].maps["trace"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([o.z for o in again]), torch.cat([o.z for o in first]), rtol=0, atol=0)
    with other.answering(learner):
        _judged(learner, frozen[torch.randperm(70, generator=torch.Generator().manual_seed(3))[:50]])
        afresh = [_judged(learner, part).z for part in parts]
    torch.testing.assert_close(torch.cat(afresh), torch.cat([o.z for o in first]), rtol=0, atol=0)


def test_only_new_modules_and_new_faces_are_asked(learner: IIN, frozen: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "judged" / "closed.npz"
    counts = _asked(learner)
    closed = ClosedModules(path)
    with closed.answering(learner):
        _judged(learner, frozen[:40])
        _judged(learner, frozen[:40])
        assert counts == [1, 1, 1]
    closed.save()
    _judged(learner, frozen[:40])
    assert counts == [2, 2, 2], "outside the block the modules answer for themselves"
    again = ClosedModules(path)
    with again.answering(learner):
        _judged(learner, frozen[:50])
        _judged(learner, frozen[20:50])
    assert counts == [3, 3, 3], "ten faces were new"
    learner.begin("inpaint")
    learner.eval()
    newest = _asked(learner)
    with again.answering(learner):
        _judged(learner, frozen[:50])
        assert newest == [0, 0, 0, 1], "the others are known, the third from when it was the newest"
        _judged(learner, frozen[:50])
        assert newest == [0, 0, 0, 1]


def test_other_weights_are_asked_anew(learner: IIN, frozen: Tensor, tmp_path: Path) -> None:
    closed = ClosedModules(tmp_path / "closed.npz")
    with closed.answering(learner):
        before = _judged(learner, frozen[:40]).z
    with torch.no_grad():
        learner.intra[0].head.bias += 3.0  # type: ignore[union-attr, operator]
    with closed.answering(learner):
        after = _judged(learner, frozen[:40]).z
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, _judged(learner, frozen[:40]).z, rtol=1e-4, atol=1e-6)


def test_who_listens_to_modules_hears_them_all(learner: IIN, frozen: Tensor, tmp_path: Path) -> None:
    """Special features, Grad-CAM and copies need the modules themselves, whatever the store knows."""
    plain = ask(learner, [frozen[:40]])
    closed = ClosedModules(tmp_path / "closed.npz")
    with closed.answering(learner):
        _judged(learner, frozen[:40])
        heard = ask(learner, [frozen[:40]])
        assert learner.answers is closed, "the store stands in again once the listener has gone"
        assert learner.closed().answers is None, "an export holds no store"
        teacher = Teacher()
        teacher.take(learner)
        assert teacher.learner is not None
        assert teacher.learner.answers is None
    assert learner.answers is None
    for name in ("common", "special", "z"):
        torch.testing.assert_close(getattr(heard, name), getattr(plain, name), rtol=0, atol=0)


def test_the_store_leaves_although_judging_failed(learner: IIN, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ClosedModules(tmp_path / "closed.npz").answering(learner):
        learner.judge(torch.zeros(2, 3))
    assert learner.answers is None
