"""Where a learner without a trace map looks: Grad-CAM, Selvaraju et al., ICCV 2017, equations 1 and 2, for the logit z.

a_k = mean over the map of dz/dA_k, map = ReLU(sum_k a_k A_k), A the last convolution map on the way to z: the output of
the last module that holds a convolution, is spatial, and receives a gradient. Pooled and averaged afterwards, it
is the class activation map of Zhou et al., CVPR 2016. It shows what speaks for "forged", not which pixels were
changed: nothing trains it to, so it is shown but not measured. Axes: B faces, S pixels, C channels, h, w of the map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Learner

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


class _Record:
    """Maps in the order in which modules finish, each cut out so that a gradient reaches it."""

    def __init__(self) -> None:
        self.maps: list[Tensor] = []

    def before(self, module: nn.Module, inputs: Any) -> None:
        # Frozen stages run under no_grad, which ends with the caller's block: from here on their maps count as well.
        torch.set_grad_enabled(True)

    def after(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[2] * output.shape[3] < 2:
            return output  # a vector, or the 1 x 1 maps of squeeze-and-excitation
        kept = output if output.requires_grad else output.detach().requires_grad_()
        self.maps.append(kept)
        return kept.clone()  # the next module may work in place


def grad_cam(learner: Learner, images: Tensor) -> Tensor:
    """(B, 3, S, S) in 0..1 to (B, 1, h, w), 0 and above; larger speaks more for "forged".

    The learner comes back as it was: no gradients, no hooks, every module in its own mode. FFDError where z depends on
    no convolution map of more than one pixel.
    """
    modes = {module: module.training for module in learner.modules()}
    record, handles = _Record(), list[RemovableHandle]()
    try:
        for module in learner.modules():
            handles.append(module.register_forward_pre_hook(record.before))
            if module is not learner and any(isinstance(part, CONVOLUTIONS) for part in module.modules()):
                handles.append(module.register_forward_hook(record.after))
        learner.eval()
        with torch.enable_grad(), learner.speaking():
            z = learner(images.detach()).z
            reached = record.maps if z.requires_grad else []
            slopes = torch.autograd.grad(z.sum(), reached, allow_unused=True) if reached else ()
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    found = [(made, slope) for made, slope in zip(reached, slopes, strict=True) if slope is not None]
    if not found:
        raise FFDError(f"Grad-CAM: the logit of {type(learner).__name__} depends on no convolution map.")
    made, slope = found[-1]
    return torch.relu((slope.mean((2, 3), keepdim=True) * made).sum(1, keepdim=True)).detach()
