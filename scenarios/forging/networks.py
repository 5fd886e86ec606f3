"""The small convolutional networks behind resynthesis, upsampling and super-resolution, and their training.

Pictures are (B, 3, S, S) float32 in 0..1. Weights are a function of the faces and of the generator alone: they are
drawn from it, training runs on one thread, and no global generator is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging.geometry import align


class Autoencoder(nn.Module):
    """Face -> code (B, D) -> face at 64 px, the shared half of a Deepfakes-like pipeline; 0.4 M weights."""

    def __init__(self, code: int = 128, width: int = 12) -> None:
        super().__init__()
        w = width
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, w, 5, 2, 2), nn.LeakyReLU(0.1)),
            *(nn.Conv2d(w, 2 * w, 5, 2, 2), nn.LeakyReLU(0.1)),
            *(nn.Conv2d(2 * w, 4 * w, 3, 2, 1), nn.LeakyReLU(0.1)),
            *(nn.Conv2d(4 * w, 4 * w, 3, 2, 1), nn.LeakyReLU(0.1), nn.Flatten()),
            nn.Linear(4 * w * 16, code),
        )
        self.grow = nn.Linear(code, 4 * w * 16)
        self.decoder = nn.Sequential(
            *(nn.Conv2d(4 * w, 16 * w, 3, 1, 1), nn.LeakyReLU(0.1), nn.PixelShuffle(2)),
            *(nn.Conv2d(4 * w, 8 * w, 3, 1, 1), nn.LeakyReLU(0.1), nn.PixelShuffle(2)),
            *(nn.Conv2d(2 * w, 8 * w, 3, 1, 1), nn.LeakyReLU(0.1), nn.PixelShuffle(2)),
            *(nn.Conv2d(2 * w, 4 * w, 3, 1, 1), nn.LeakyReLU(0.1), nn.PixelShuffle(2)),
            nn.Conv2d(w, 3, 3, 1, 1),
        )

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, 64, 64) -> (B, D)."""
        return torch.as_tensor(self.encoder(images))

    def decode(self, codes: Tensor) -> Tensor:
        """(B, D) -> (B, 3, 64, 64)."""
        first = F.leaky_relu(self.grow(codes), 0.1)
        return torch.as_tensor(self.decoder(first.reshape(len(codes), -1, 4, 4)))

    def forward(self, images: Tensor) -> Tensor:
        """Both halves."""
        return self.decode(self.encode(images))


class Upsampler(nn.Module):
    """Down by strided, up by *transposed* convolutions with uneven overlap: leaves the periodic spectrum of
    Odena et al., "Deconvolution and checkerboard artifacts" (2016); side must divide by 4."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        w = width
        self.body = nn.Sequential(
            *(nn.Conv2d(3, w, 3, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(w, 2 * w, 3, 2, 1), nn.LeakyReLU(0.1)),
            *(nn.Conv2d(2 * w, 2 * w, 3, 1, 1), nn.LeakyReLU(0.1)),
            *(nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1), nn.LeakyReLU(0.1)),
            nn.ConvTranspose2d(w, 3, 3, 2, 1, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> the same shape."""
        return torch.as_tensor(self.body(images))


class Superresolver(nn.Module):
    """Sub-pixel convolutions (ESPCN, Shi et al., CVPR 2016): (B, 3, S, S) shrunk by `factor`, then grown again."""

    def __init__(self, factor: int = 3, width: int = 24) -> None:
        super().__init__()
        self.factor = factor
        self.body = nn.Sequential(
            *(nn.Conv2d(3, width, 5, 1, 2), nn.LeakyReLU(0.1), nn.Conv2d(width, width, 3, 1, 1), nn.LeakyReLU(0.1)),
            *(nn.Conv2d(width, 3 * factor**2, 3, 1, 1), nn.PixelShuffle(factor)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """The same face with its fine detail invented; side must divide by the factor."""
        small = F.avg_pool2d(images, self.factor)
        rough = F.interpolate(small, scale_factor=float(self.factor), mode="bicubic", align_corners=False)
        return torch.as_tensor(rough + self.body(small))


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, so that sums are added in one order; the former number is restored."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def draw_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Kaiming-normal weights (He et al. 2015, gain of a slope of 0.1) and zero biases, from `generator`."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, 0.1, generator=generator)
        else:
            nn.init.zeros_(parameter)


def aligned_faces(faces: Sequence[Face], side: int) -> Tensor:
    """Inner faces (N, 3, side, side) in 0..1."""
    return torch.cat([to_tensor(align(face, side)[0]) for face in faces])


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()[None] / 255


def to_layer(images: Tensor) -> NDArray[np.float32]:
    """(1, 3, H, W) -> (H, W, 3) float32 in 0..255."""
    return np.ascontiguousarray(images[0].detach().clamp(0, 1).permute(1, 2, 0).numpy()) * np.float32(255)


def train(
    network: nn.Module,
    images: Tensor,
    rng: np.random.Generator,
    steps: int,
    batch: int = 24,
    rate: float = 2e-3,
    distort: Callable[[Tensor, torch.Generator], Tensor] | None = None,
) -> None:
    """Fit `network(distort(x)) = x` in L1 by Adam with a cosine rate; half of each batch is mirrored.

    Channels lie last in memory meanwhile: convolutions this narrow take half the time that way.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    with one_thread():
        draw_weights(network, generator)
        network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            chosen = images[torch.randint(len(images), (batch,), generator=generator)]
            chosen = torch.cat([chosen[: batch // 2], chosen[batch // 2 :].flip(3)])
            seen = distort(chosen, generator) if distort else chosen
            seen = seen.contiguous(memory_format=torch.channels_last)
            loss = (network(seen) - chosen).abs().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)


def small_warp(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random smooth displacement of up to about 5 % of the side: Deepfakes' training trick against copying."""
    coarse = torch.randn(len(images), 2, 5, 5, generator=generator) * 0.05
    flow = F.interpolate(coarse, images.shape[2:], mode="bicubic", align_corners=True)
    eye = torch.eye(2, 3).expand(len(images), 2, 3)
    grid = F.affine_grid(eye, list(images.shape), align_corners=False) + flow.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
