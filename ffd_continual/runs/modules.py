"""Do a learner's modules keep apart, and stay what they were? Figures of finished runs whose learner adds one a type.

Two claims of IIN are measured on held-out faces (docs/decisions/0003-reading-of-iin.md). *Decoupling*: the mean |corr|
between common and special features after each class's mean is removed (both must predict the label, so class means
always correlate), beside its floor, the same with the special features permuted within each class. *Frozen experts*:
how far a module's logit z_k moved since its experience ended, and its AUC on its own test stream then and now.
Axes: N faces, K modules, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ffd_continual.config import RunConfig
from ffd_continual.load import learner_class
from ffd_continual.measuring.matrix import number
from ffd_continual.measuring.metrics import auc
from ffd_continual.runs.assemble import Parts
from ffd_continual.runs.checkpoint import load_checkpoint
from ffd_continual.runs.folder import RunFolder
from ffd_continual.runs.saving import restore_learner
from ffd_continual.scenarios.dataset import plain_batch
from ffd_continual.strategies.learner import Learner, place
from ffd_continual.strategies.learners.iin_losses import cross_correlation
from ffd_continual.strategies.strategy import Rows

FACES = 2000  # at most so many are asked; under 1,000 the floor itself says little
PERMUTATIONS = 20


@dataclass(frozen=True)
class Answers:
    """What a learner's parts say of N faces: common (N, D), special (N, K, D), logits z (N, K)."""

    common: Tensor
    special: Tensor
    z: Tensor


def expert_modules(learner: Learner) -> nn.ModuleList | None:
    """The learner's modules of one type each, in the order of `growth`; None where it has none.

    They are found by the name `intra`; each takes a batch and returns (special feature (B, D), logit (B,), ...).
    """
    found = getattr(learner, "intra", None)
    return found if isinstance(found, nn.ModuleList) and len(found) == len(learner.growth) > 0 else None


@torch.no_grad()
def ask(learner: Learner, frozen: Sequence[Tensor]) -> Answers:
    """Judge the faces, given as frozen features in batches, and listen to each module on the way."""
    modules = expert_modules(learner)
    assert modules is not None
    heard: list[list[Sequence[Tensor]]] = [[] for _ in modules]

    def listen(at: int) -> Any:
        return modules[at].register_forward_hook(lambda module, asked, answer: heard[at].append(answer))

    handles = [listen(at) for at in range(len(modules))]
    was = learner.training
    learner.eval()
    try:
        with learner.speaking():
            common = torch.cat([learner.judge(batch).features["common"] for batch in frozen])
    finally:
        for handle in handles:
            handle.remove()
        learner.train(was)
    special = torch.stack([torch.cat([answer[0] for answer in own]) for own in heard], dim=1)
    return Answers(common, special, torch.stack([torch.cat([answer[1] for answer in own]) for own in heard], dim=1))


def mean_correlation(common: Tensor, special: Tensor, labels: Tensor) -> float:
    """Mean |corr| of all pairs of features (N, D) and (N, D), each class's mean removed."""
    return float(cross_correlation(common.double(), special.double(), labels).abs().mean())


def correlation_floor(common: Tensor, special: Tensor, labels: Tensor, seed: int = 0) -> float:
    """What `mean_correlation` gives features that have nothing to do with each other, from as many faces."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(PERMUTATIONS):
        order = torch.arange(len(labels))
        for label in (0, 1):
            at = (labels.cpu() == label).nonzero().squeeze(1)
            order[at] = at[torch.randperm(len(at), generator=generator)]
        found.append(mean_correlation(common, special[order.to(special.device)], labels))
    return float(np.mean(found))


def held_out(parts: Parts) -> Rows:
    """Rows of distinct test faces of all experiences, validation faces added below 1,000; spread evenly, ascending."""
    found = np.zeros(0, np.int64)
    for stream in ("test", "valid"):
        if len(found) < FACES // 2:
            more = [parts.scenario.index(stream, name) for name in parts.scenario.experiences]
            found = np.concatenate([found, *more])
            _, first = np.unique(parts.sources.table.slot[found], return_index=True)
            found = np.sort(found[first])
    chosen = np.unique(np.linspace(0, len(found) - 1, min(FACES, len(found))).astype(np.int64))
    return np.asarray(found[chosen], np.int64)


def _earlier(config: RunConfig, parts: Parts, folder: RunFolder) -> Iterator[tuple[int, Learner]]:
    """The learner as it came out of each experience whose checkpoint is still there."""
    for experience in range(len(parts.learner.growth)):
        path = folder.after(experience)
        if path.is_dir():
            with torch.random.fork_rng(devices=[]):
                learner: Learner = learner_class(config.learner.name)(config.learner.config)  # type: ignore[call-arg]
                restore_learner(learner, load_checkpoint(path), path)
            yield experience, place(learner, parts.device)


def measure_modules(folder: RunFolder, config: RunConfig, parts: Parts) -> dict[str, Any]:
    """{"faces": N, "of": {forgery: {corr, floor, drift, spread, auc_then, auc_now}}}, or {} without modules.

    corr and floor: see the module's text. drift: mean |z_k now - z_k when its experience ended| over all N faces,
    spread: standard deviation of z_k then, to compare it with. The AUC are z_k's alone on its own test stream.
    """
    learner = parts.learner
    if expert_modules(learner) is None:
        return {}
    rows = held_out(parts)
    batches = []
    for start in range(0, len(rows), config.train.eval_batch):
        chunk = [int(row) for row in rows[start : start + config.train.eval_batch]]
        batch = plain_batch(parts.sources, chunk, pictures=False)
        with torch.no_grad():
            batches.append(learner.seen(type(batch)(*(field.to(parts.device) for field in batch))))
    labels = torch.from_numpy((parts.sources.forgery[rows] > 0).astype(np.int64))
    now = ask(learner, batches)
    slots = parts.sources.table.slot
    result: dict[str, dict[str, float | None]] = {}
    own = []
    for at, name in enumerate(learner.growth):
        special = now.special[:, at]
        on_device = labels.to(special.device)
        result[name] = {
            "corr": number(mean_correlation(now.common, special, on_device)),
            "floor": number(correlation_floor(now.common, special, on_device, config.seed)),
        }
        own.append(np.isin(slots[rows], slots[parts.scenario.index("test", name)]))
    for at, before in _earlier(config, parts, folder):
        then, later = (answers.z[:, at].double().cpu().numpy() for answers in (ask(before, batches), now))
        mine, truth = own[at], labels.numpy()
        result[learner.growth[at]] |= {
            "drift": number(float(np.abs(later - then).mean())),
            "spread": number(float(then.std())),
            "auc_then": number(auc(truth[mine], then[mine])),
            "auc_now": number(auc(truth[mine], later[mine])),
        }
    return {"faces": len(rows), "of": cast(dict[str, Any], result)}
