"""What the similarity module costs, measured, and one training step on each backbone of the field. Minutes long."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from ffd_continual.scenarios.batch import Batch
from ffd_continual.strategies.learners.llsm import LLSM, LLSMConfig
from ffd_continual.strategies.learners.pyramid import PyramidConfig
from ffd_continual.strategies.learners.similarity import LocalSimilarity, literal_map, pair_loss, pair_targets


def _peak(work: Callable[[], object]) -> int:
    """The most bytes of tensors alive at a time during `work`, from every allocation that the profiler saw."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    events = record.profiler.kineto_results.events()
    alive = most = 0
    for _, change in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        alive += change
        most = max(most, alive)
    assert most > 0
    return most


def _seconds(work: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times + 1):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return min(found[1:])


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [1, 2, 8, 16])
def test_the_factorised_map_is_20_times_faster_in_a_twentieth_of_the_memory(hidden: int) -> None:
    """Forward and backward of one face's loss at 14 x 14 x 728, the paper's middle map."""
    torch.manual_seed(0)
    module, features = LocalSimilarity(728, hidden), torch.randn(1, 728, 14, 14)
    cells = (torch.rand(1, 196) > 0.5).float()
    target = pair_targets(cells)

    def literal() -> None:
        x = features.clone().requires_grad_()
        logits = literal_map(x, module.pair.weight, module.pair.bias, module._last())  # type: ignore[arg-type]
        F.binary_cross_entropy_with_logits(logits, target).backward()  # type: ignore[no-untyped-call]

    def factorised() -> None:
        x = features.clone().requires_grad_()
        pair_loss(*module._halves(x), module._last(), cells).backward()  # type: ignore[no-untyped-call]

    slow, fast = _seconds(literal, 1), _seconds(factorised, 10)
    large, small = _peak(literal), _peak(factorised)
    print(
        f"\n14 x 14 x 728, d = {hidden}, forward and backward: {slow * 1e3:.0f} ms and {large / 2**20:.0f} MiB against "
        f"{fast * 1e3:.2f} ms and {small / 2**20:.1f} MiB: {slow / fast:.0f} times faster, 1/{large / small:.0f}"
    )
    assert slow / fast >= 20
    assert large / small >= 20


LARGE_MAP = """
import resource
import torch
from ffd_continual.strategies.learners.similarity import LocalSimilarity

torch.set_num_threads(1)
torch.manual_seed(0)
module = LocalSimilarity(128, 16)
features = torch.randn(8, 128, 56, 56, requires_grad=True)
mask = torch.zeros(8, 1, 224, 224)
mask[:4, :, 60:120, 70:150] = 1.0
loss = module.loss(features, mask, torch.ones(8, dtype=torch.bool))
loss.backward()
assert features.grad is not None and bool(torch.isfinite(features.grad).all())
assert float(features.grad.abs().sum()) > 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_56_by_56_cells_at_batch_8_fit_into_2_gib_with_the_backward_pass() -> None:
    """The whole process, interpreter and libraries included; one (8, L, L, 16) tensor alone would take 4.7 GiB."""
    done = subprocess.run([sys.executable, "-c", LARGE_MAP], capture_output=True, text=True, timeout=500, check=True)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    peak = int(done.stdout.split()[-1]) * unit
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\n56 x 56 x 128, batch 8, d = 16: {peak / 2**30:.2f} GiB at most, {spent.ru_utime:.0f} s of CPU time")
    assert peak < 2 * 2**30


def _faces(count: int, side: int) -> Batch:
    """Noise with a mask in every second face; what LLSM does not read is empty."""
    made = {name: torch.zeros(count, 0) for name in Batch._fields}
    made["image"] = torch.rand(count, 3, side, side)
    made["target"] = torch.arange(count) % 2
    made["mask"] = torch.zeros(count, 1, side, side)
    made["mask"][1::2, :, side // 4 : side // 2, side // 4 :] = 1.0
    made["mask_known"] = torch.ones(count, dtype=torch.bool)
    return Batch(**made)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["legacy_xception", "efficientnet_b4", "efficientnet_b0", "resnet50", "dpn68", "vgg19", "hrnet_w18"]
)
def test_one_training_step_on_every_backbone(name: str) -> None:
    torch.manual_seed(0)
    learner = LLSM(LLSMConfig(trunk=PyramidConfig(name, "none"), widths=(32, 24, 16, 16)))
    batch = _faces(4, 64)
    before = {n: p.detach().clone() for n, p in learner.named_parameters()}
    optimizer = torch.optim.Adam(learner.param_groups(1e-4, 0.0), 1e-4)
    out, losses = learner.train().step(batch)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert list(losses) == ["decision", "similarity", "mask"]
    assert out.z.shape == (4,)
    assert out.maps["trace"].shape[:2] == (4, 1)
    moved = {n for n, p in learner.named_parameters() if not torch.equal(p, before[n])}
    for part in ("trunk.", "similarity.", "decoder.", "head."):
        assert any(n.startswith(part) for n in moved)
    with torch.no_grad():
        again = learner.eval()(batch.image)
    assert bool(torch.isfinite(again.z).all())
