"""Stationary wavelet decomposition (SWD) of pictures: the a-trous transform with periodic borders, as a layer.

Source: Jia et al., "Inconsistency-Aware Wavelet Dual-Branch Network for Face Forgery Detection", IEEE TBIOM 2021,
section III-A. Each level splits the level before's LL into LL, LH, HL, HH with the same filters, spread by a dilation
instead of thinning the picture, so every sub-band keeps the picture's size. LH is low-pass along the rows and
high-pass along the columns (PyWavelets: cH), HL the other way (cV).

Deviations: the paper's text sets the dilation to the level d; the transform it names spreads by 2^(d-1), the same for
levels 1 and 2 only: the transform is followed. Normalisation (the paper is silent): the taps are divided by sqrt(2), so
LL keeps the picture's range; times 2^d, level d is what PyWavelets' `swt2` gives, and for Haar it is `swt2(norm=True)`.

The wavelets are the spline family of Cohen, Daubechies and Feauveau (Comm. Pure Appl. Math. 45, 1992, section 6.A),
computed from its formula; PyWavelets calls them rbioN.M (N: order of the analysis spline), and rbio1.1 is Haar.
Axes: B pictures, C colours, H, W height and width, L levels, F taps of a filter.
"""

from __future__ import annotations

from math import comb, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.scenarios.errors import FFDError

#: The order of the sub-bands at each level.
BANDS = ("LL", "LH", "HL", "HH")
WAVELETS = (
    "haar", "rbio1.1", "rbio1.3", "rbio1.5", "rbio2.2", "rbio2.4", "rbio2.6", "rbio2.8",
    "rbio3.1", "rbio3.3", "rbio3.5", "rbio3.7", "rbio3.9",
)  # fmt: skip


def _times(a: list[float], b: list[float]) -> list[float]:
    """Product of two polynomials."""
    made = [0.0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            made[i + j] += x * y
    return made


def _plus(a: list[float], b: list[float]) -> list[float]:
    """Sum of two filters of odd lengths about their common centre."""
    if len(a) < len(b):
        a, b = b, a
    skip = (len(a) - len(b)) // 2
    return [x + (b[i - skip] if skip <= i < skip + len(b) else 0.0) for i, x in enumerate(a)]


def _spline(order: int) -> list[float]:
    """((1 + 1/z) / 2)^order, sum 1."""
    return [comb(order, k) / 2**order for k in range(order + 1)]


def spline_taps(order: int, dual: int) -> tuple[list[float], list[float]]:
    """Analysis filters of the biorthogonal spline wavelet (order, dual): low-pass and high-pass taps, F each, F even.

    Low-pass: the B-spline of `order`. High-pass: the alternated dual low-pass, which is the spline of order `dual`
    times sum_{k < n} C(n - 1 + k, k) sin^2k(w / 2), n = (order + dual) / 2. Orthonormal scale (sqrt(2) in sum), as
    PyWavelets' `dec_lo` and `dec_hi`, with its alignment.
    """
    half = (order + dual) // 2
    sine, power, series = [-0.25, 0.5, -0.25], [1.0], [0.0]
    for k in range(half):
        series = _plus(series, [comb(half - 1 + k, k) * p for p in power])
        power = _times(power, sine)
    low, other = _spline(order), _times(_spline(dual), series)
    length = len(other) + len(other) % 2
    before = (length - len(low) + 1) // 2
    low = [0.0] * before + low + [0.0] * (length - before - len(low))
    other = other + [0.0] * (length - len(other))
    return [sqrt(2.0) * t for t in low], [sqrt(2.0) * (-1.0) ** (k + 1) * t for k, t in enumerate(other)]


def wavelet_taps(name: str) -> tuple[list[float], list[float]]:
    """Low-pass and high-pass analysis taps of one of WAVELETS. Raises FFDError on any other name."""
    if name not in WAVELETS:
        raise FFDError(f"learner.wavelet must be one of {', '.join(WAVELETS)} or 'none', not {name!r}.")
    order, dual = (1, 1) if name == "haar" else (int(part) for part in name[4:].split("."))
    return spline_taps(order, dual)


def filter_axis(x: Tensor, taps: list[float], dilation: int, axis: int) -> Tensor:
    """y[n] = sum_k taps[k] x[n + (F/2 - k) dilation] along one axis, periodic; same shape."""
    made = None
    for k, tap in enumerate(taps):
        if tap:
            moved = tap * torch.roll(x, (k - len(taps) // 2) * dilation, axis)
            made = moved if made is None else made + moved
    assert made is not None, "a filter has a tap"
    return made


def decompose(images: Tensor, low: list[float], high: list[float], levels: int) -> Tensor:
    """(B, C, H, W) to (B, L, 4, C, H, W): every level's sub-bands in the order of BANDS, borders periodic."""
    found, at = [], images
    for level in range(1, levels + 1):
        dilation = 2 ** (level - 1)
        along = [filter_axis(at, taps, dilation, -1) for taps in (low, high)]
        bands = [filter_axis(along[row], taps, dilation, -2) for row in (0, 1) for taps in (low, high)]
        at = bands[0]
        found.append(torch.stack(bands, dim=1))
    return torch.stack(found, dim=1)


class SWD(nn.Module):
    """The layer: no parameters; a picture whose sides are no multiples of 2^L is mirrored on and cut again."""

    def __init__(self, wavelet: str = "haar", levels: int = 3):
        super().__init__()
        if not 1 <= levels <= 5:
            raise FFDError(f"learner.levels must be 1 to 5, not {levels}.")
        self.levels = levels
        self.low, self.high = ([t / sqrt(2.0) for t in taps] for taps in wavelet_taps(wavelet))

    @property
    def bands_per_colour(self) -> int:
        """Sub-band pictures made of one colour plane."""
        return self.levels * len(BANDS)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 4 L C, H, W): level by level, in each LL, LH, HL, HH, in each the colours."""
        height, width = images.shape[-2:]
        step = 2**self.levels
        more = (-height % step, -width % step)
        if any(more):
            images = F.pad(images, (0, more[1], 0, more[0]), mode="reflect")
        bands = decompose(images, self.low, self.high, self.levels).flatten(1, 3)
        return bands[..., :height, :width]
