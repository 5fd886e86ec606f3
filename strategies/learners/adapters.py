"""Intra-modules: one light module a forgery type, hung on a frozen base, so that nothing learnt later can move it.

Reading of IIN-FFD (Zhou et al., Tsinghua Sci. Tech. 29(6), 2024; only the abstract is public): the intra-module is
trained by supervision for one kind of forgery and extracts its special features. Here it is a set of low-rank updates
(Hu et al., LoRA, arXiv:2106.09685) of every 1x1 convolution of the frozen later stages, with normalisation of its own,
a bottleneck and a logit. Frozen early stages plus a frozen base give it a fixed input: its answers cannot drift.
Axes: B faces, C channels, D special features, r rank.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

State = dict[str, Tensor]


def adapted_layers(base: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the base's 1x1 convolutions without groups, and of its normalisation layers."""
    points = [
        name
        for name, layer in base.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1
    ]
    norms = [name for name, layer in base.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    return points, norms


def low_rank_update(weight: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """W + up @ down: weight (C_out, C_in, 1, 1), down (r, C_in), up (C_out, r)."""
    return weight + (up @ down).view_as(weight)


class IntraModule(nn.Module):
    """What one forgery type adds: low-rank factors, normalisation, a bottleneck to D special features and a logit."""

    def __init__(self, base: nn.Module, channels: int, features: int, rank: int):
        super().__init__()
        points, norms = adapted_layers(base)
        layers = dict(base.named_modules())
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        self.scale, self.shift = nn.ParameterDict(), nn.ParameterDict()
        self.points = {name: name.replace(".", "_") for name in points}
        self.norms = {name: name.replace(".", "_") for name in norms}
        for name, key in self.points.items():
            weight = layers[name].weight
            assert isinstance(weight, Tensor)
            out, into = int(weight.shape[0]), int(weight.shape[1])
            self.down[key] = nn.Parameter(torch.randn(rank, into) / into**0.5)
            self.up[key] = nn.Parameter(torch.zeros(out, rank))
        for name, key in self.norms.items():
            layer = layers[name]
            assert isinstance(layer, nn.BatchNorm2d)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            self.scale[key] = nn.Parameter(layer.weight.detach().clone())
            self.shift[key] = nn.Parameter(layer.bias.detach().clone())
            self.register_buffer(f"mean_{key}", layer.running_mean.clone())
            self.register_buffer(f"var_{key}", layer.running_var.clone())
        self.squeeze = nn.Linear(channels, features)
        self.head = nn.Linear(features, 1)

    def weights(self, base: nn.Module) -> State:
        """The base's parameters and buffers with this module's in their places."""
        own, counters = dict(base.named_parameters()), dict(base.named_buffers())
        state: State = {}
        for name, key in self.points.items():
            state[f"{name}.weight"] = low_rank_update(own[f"{name}.weight"], self.down[key], self.up[key])
        for name, key in self.norms.items():
            state[f"{name}.weight"], state[f"{name}.bias"] = self.scale[key], self.shift[key]
            state[f"{name}.running_mean"] = getattr(self, f"mean_{key}")
            state[f"{name}.running_var"] = getattr(self, f"var_{key}")
            # Normalisation counts its batches in place; the frozen base must not even move by that.
            state[f"{name}.num_batches_tracked"] = counters[f"{name}.num_batches_tracked"].clone()
        return state

    def forward(self, base: nn.Module, low: Tensor) -> tuple[Tensor, Tensor]:
        """Frozen early map (B, C_low, h, w) to the special feature s (B, D) and its logit (B,)."""
        base.train(self.training)  # batch statistics while training; running ones, this module's own, later
        feature = functional_call(base, self.weights(base), (low,)).mean((2, 3))
        special = self.squeeze(feature)
        return special, self.head(torch.relu(special)).squeeze(1)

    def copy_from(self, other: IntraModule) -> None:
        """Start from what another type's module has learnt."""
        self.load_state_dict(other.state_dict())
