"""Shared by the methods that weigh parameters (ewc, si, mas): gradients of single faces, quadratic penalties, growth.

A parameter is known by its name. One that has grown since it was weighed keeps its place in the first entries of each
axis: the penalty holds that old part, the new part is free. Parameters that are trained no more (a closed module)
cannot move, so they take no part. What is kept lies in row-major order, as a checkpoint gives it back: another order
of the same numbers changes a sum's last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.views import keyed_generator
from ffd_continual.strategies.learner import Learner, Output
from ffd_continual.strategies.strategy import Context, Rows

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy

_SAMPLE = 606
Tensors = dict[str, Tensor]


class _NoDropout(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is F.dropout else func(*args, **(kwargs or {}))


@contextmanager
def at_rest(learner: Learner) -> Iterator[None]:
    """The trained decision without noise: normalisation fixed, no dropout, weights that train.

    Not plain evaluation mode, in which a learner may answer with a slow copy that no gradient reaches (IIN): the
    learner's own flag says training, its layers' flags say evaluation, and dropout lets everything pass.
    """
    was = learner.training
    learner.eval()
    learner.training = True
    try:
        with _NoDropout():
            yield
    finally:
        learner.train(was)


def trained(strategy: FaceStrategy) -> dict[str, nn.Parameter]:
    """The learner's parameters that the optimizer moves, by name."""
    held = {id(p) for group in strategy.optimizer.param_groups for p in group["params"] if p.requires_grad}
    return {name: p for name, p in strategy.learner.named_parameters() if id(p) in held}


def sample_rows(context: Context, experience: int, count: int) -> Rows:
    """`count` train rows of an experience (0: all), a pure function of the seed."""
    rows = context.train_rows[experience]
    if count <= 0 or count >= len(rows):
        return rows
    rng = keyed_generator(_SAMPLE, context.seed, experience)
    return np.asarray(np.sort(rng.choice(rows, count, replace=False)), np.int64)


def face_gradients(
    learner: Learner,
    faces: Iterable[Batch],
    objective: Callable[[Output, Batch], Tensor],
    parameters: Mapping[str, nn.Parameter],
) -> Iterator[Tensors]:
    """Gradient of `objective` (a scalar, of one face) for each face by itself; parameters it does not reach: zeros."""
    with at_rest(learner):
        for batch in faces:
            for i in range(len(batch.target)):
                face = batch.take(torch.tensor([i], device=batch.target.device))
                value = objective(learner.look(face), face)
                found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
                pairs = zip(parameters.items(), found, strict=True)
                yield {name: torch.zeros_like(p) if g is None else g for (name, p), g in pairs}


def mean_of(gradients: Iterable[Tensors], what: Callable[[Tensor], Tensor]) -> Tensors:
    """Mean over faces of `what` of each gradient, entry by entry."""
    total: Tensors = {}
    count = 0
    for gradient in gradients:
        count += 1
        for name, g in gradient.items():
            total[name] = what(g) if name not in total else total[name] + what(g)
    return {name: (value / count).contiguous() for name, value in total.items()}


def old_part(values: Tensor, like: Tensor, name: str) -> Tensor:
    """The view of `values` that has the shape of `like`. FFDError where a parameter has shrunk or changed its axes."""
    if values.ndim != like.ndim or any(now < then for now, then in zip(values.shape, like.shape, strict=True)):
        raise FFDError(
            f"the learner's parameter {name} had the shape {tuple(like.shape)} and now has {tuple(values.shape)}: "
            "strategies that weigh parameters (ewc, si, mas) follow growth only. Choose another strategy."
        )
    return values[tuple(slice(0, n) for n in like.shape)]


def widened(old: Tensor | None, like: Tensor, name: str) -> Tensor:
    """`old` (None: nothing) in the first entries of zeros of `like`'s shape, on its device."""
    made = torch.zeros(like.shape, dtype=like.dtype, device=like.device)
    if old is not None:
        old_part(made, old, name).copy_(old)
    return made


def quadratic(parameters: Mapping[str, Tensor], importance: Tensors, anchor: Tensors) -> Tensor:
    """sum_i importance_i (theta_i - anchor_i)^2 over the parameters' known parts; 0 where nothing is known."""
    terms = []
    for name, parameter in parameters.items():
        if name in importance:
            weight, before = importance[name].to(parameter.device), anchor[name].to(parameter.device)
            terms.append((weight * (old_part(parameter, before, name) - before) ** 2).contiguous().sum())
    return torch.stack(terms).sum() if terms else torch.zeros(())


def copies(parameters: Mapping[str, Tensor]) -> Tensors:
    """The parameters' values, apart from the learner's."""
    return {name: p.detach().clone(memory_format=torch.contiguous_format) for name, p in parameters.items()}


def pack(**parts: Tensors) -> Tensors:
    """Several dicts of tensors as one; a part's name holds no dot."""
    return {f"{part}.{name}": value for part, tensors in parts.items() for name, value in tensors.items()}


def unpack(tensors: Tensors, part: str) -> Tensors:
    """One part of what `pack` made."""
    return {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}


def byte_count(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of all tensors."""
    return sum(t.numel() * t.element_size() for t in tensors.values())
