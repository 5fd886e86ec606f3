"""Where Guide-Space wants features to lie, and which forgery type goes where (Guo et al., ICCV 2023, Eq. 1-2 and the
matching of Eq. 3).

Every forgery embedding makes the angle theta with the real one, and they are spread as far as that allows. Closed form:
e_i = cos(theta) e_r + sin(theta) u_i, u_i the corners of a regular simplex orthogonal to e_r. So four types at 120
degrees stand at 90 degrees to one another.
Deviations: the constrained minimum of Eq. 2 is found by projected gradients instead of the appendix's Lagrange system
(same minimum, test); in a stream the embeddings of all types to come are laid down at the start ("reserved"), since
none in use may move; a type's match stays fixed once its experience has ended, and a type that a batch lacks keeps its
own (**reading**). Orthonormal u_i are an addition, for streams whose number of types is not known.
Axes: B faces, D features, N embeddings of forgeries, G = N + 1 with the real one, which is row 0, T types met.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ffd_continual.scenarios.errors import FFDError

MODES = ("simplex", "solved", "orthonormal")


def orthonormal_frame(count: int, dim: int) -> Tensor:
    """(count, dim) orthonormal rows, random (torch's generator), float64. ValueError when count > dim."""
    if count > dim:
        raise ValueError(f"{count} orthonormal directions do not fit into {dim} features")
    columns: Tensor = torch.linalg.qr(torch.randn(dim, count, dtype=torch.float64))[0]
    return columns.T.contiguous()


def simplex_corners(frame: Tensor) -> Tensor:
    """N unit vectors with pairwise cosine -1/(N-1), in the span of an orthonormal frame (N, D)."""
    if len(frame) == 1:
        return frame.clone()
    return F.normalize(frame - frame.mean(0), dim=1)


def compose(real: Tensor, directions: Tensor, theta: float) -> Tensor:
    """Eq. 1: e_i = cos(theta) e_r + sin(theta) u_i. real (D,), directions (N, D) unit and orthogonal to it, radians."""
    return math.cos(theta) * real + math.sin(theta) * directions


def repulsion(guides: Tensor, temperature: float) -> Tensor:
    """Eq. 2 (**reading**): mean over i of log sum_{j != i} exp(e_i . e_j / tau), guides (N, D) with N of 2 or more."""
    logits = guides @ guides.T / temperature
    logits.fill_diagonal_(-math.inf)
    return torch.logsumexp(logits, dim=1).mean()


def solve_directions(real: Tensor, count: int, theta: float, temperature: float, steps: int = 3000) -> Tensor:
    """Eq. 2 under Eq. 1 by projected gradients from random directions: u (N, D) float64.

    A step follows the gradient of `repulsion` in the tangent of both constraints (orthogonal to e_r, unit length),
    then projects back onto them. Its size is in units of tau * N, in which the gradient is bounded, and at most
    tau / 2, as the curvature grows with 1 / tau.
    """
    real = real.double()
    directions = torch.randn(count, len(real), dtype=torch.float64)
    for _ in range(steps):
        directions = F.normalize(directions - directions @ real[:, None] * real, dim=1)
        if count == 1:
            break
        guides = compose(real, directions, theta)
        logits = (guides @ guides.T / temperature).fill_diagonal_(-math.inf)
        share = torch.softmax(logits, dim=1)
        pull = (share + share.T) @ guides
        pull = pull - pull @ real[:, None] * real
        pull = pull - (pull * directions).sum(1, keepdim=True) * directions
        directions = directions - min(0.2, temperature / 2) * pull
    return F.normalize(directions, dim=1)


def guide_embeddings(mode: str, count: int, dim: int, theta: float, temperature: float) -> Tensor:
    """(1 + N, D) float32: e_r, then N = count forgery embeddings; theta in degrees.

    `mode`: "simplex" (closed form), "solved" (the paper's numerical problem), "orthonormal" (u_i orthonormal; count 0
    takes all D - 1). Raises FFDError where they do not fit.
    """
    if mode not in MODES:
        raise FFDError(f"learner.mode must be one of {', '.join(MODES)}, not {mode!r}.")
    if not 0.0 < theta < 180.0:
        raise FFDError(f"learner.theta is the angle to the real embedding, between 0 and 180 degrees, not {theta}.")
    if count == 0 and mode == "orthonormal":
        count = dim - 1
    if count < 1:
        raise FFDError(f"learner.reserve={count}: say how many forgery types mode {mode} shall have room for.")
    if count > dim - 1:
        raise FFDError(f"learner.reserve={count}: {dim} features have room for {dim - 1} forgery types at most.")
    frame = orthonormal_frame(count + 1, dim)
    real, rest, angle = frame[0], frame[1:], math.radians(theta)
    if mode == "solved":
        directions = solve_directions(real, count, angle, temperature)
    else:
        directions = simplex_corners(rest) if mode == "simplex" else rest
    return torch.cat([real[None], compose(real, directions, angle)]).float()


def match_types(means: Tensor, guides: Tensor) -> list[int]:
    """Hungarian matching (phi of Eq. 3): means (T, D) of types to guides (N, D), the column of each type.

    Minimises the sum of squared distances; as guides have unit length only -mean . guide counts. T must not exceed N.
    """
    cost = -(means.double() @ guides.double().T).cpu().numpy()
    return [int(column) for column in linear_sum_assignment(cost)[1]]


def accept_shapes(module: nn.Module, names: Sequence[str], state: dict[str, Tensor], prefix: str) -> None:
    """Give buffers that grow the shapes of those about to be loaded."""
    for name in names:
        stored = state.get(prefix + name)
        if stored is not None:
            setattr(module, name, getattr(module, name).new_zeros(stored.shape))


class Guides(nn.Module):
    """The embeddings and the types matched to them; all of it buffers.

    Buffers: `embeddings` (1 + N, D), row 0 real; by type, in order of arrival: `types` (T,) forgery index, `arrived`
    (T,) the experience that brought it, `row` (T,) its embedding's row or -1, `closed` (T,) whether that is final.
    """

    embeddings: Tensor
    types: Tensor
    arrived: Tensor
    row: Tensor
    closed: Tensor
    _GROWING = ("types", "arrived", "row", "closed")

    def __init__(self, embeddings: Tensor):
        super().__init__()
        self.register_buffer("embeddings", embeddings)
        for name in self._GROWING:
            kind = torch.bool if name == "closed" else torch.int64
            self.register_buffer(name, torch.zeros(0, dtype=kind))

    def meet(self, forgery: Tensor, experience: Tensor) -> None:
        """Take in the types of faces (B,) not met before, in order of their index. FFDError when no room is left."""
        known = set(self.types.tolist())
        for index in sorted(set(forgery.tolist()) - known - {0}):
            if len(self.types) == len(self.embeddings) - 1:
                raise FFDError(
                    f"guide_space has room for {len(self.types)} forgery types and meets one more: raise "
                    "learner.reserve, or take learner.mode=orthonormal, which leaves room for features - 1."
                )
            arrived = int(experience[forgery == index].min())
            for name, value in zip(self._GROWING, (index, arrived, -1, False), strict=True):
                old: Tensor = getattr(self, name)
                setattr(self, name, torch.cat([old, old.new_tensor([value])]))

    def match(self, features: Tensor, forgery: Tensor) -> None:
        """Match the open types of a batch, unit features (B, D), to the embeddings that no other type holds."""
        present = torch.isin(self.types, forgery)
        chosen = (present & ~self.closed).nonzero().squeeze(1)
        if not len(chosen):
            return
        held = self.row[~(present & ~self.closed)]
        free = torch.arange(1, len(self.embeddings), device=self.row.device)
        free = free[~torch.isin(free, held)]
        means = torch.stack([features[forgery == kind].mean(0) for kind in self.types[chosen]])
        self.row[chosen] = free[match_types(means, self.embeddings[free])]

    def close(self, experiences: int) -> None:
        """The match of matched types that came with the first `experiences` experiences is final."""
        self.closed |= (self.arrived < experiences) & (self.row > 0)

    def rows_of(self, forgery: Tensor) -> Tensor:
        """Embedding rows (B,) of faces, 0 for real ones; all their types must have been matched."""
        rows = torch.zeros_like(forgery)
        for kind, row in zip(self.types.tolist(), self.row.tolist(), strict=True):
            rows[forgery == kind] = row
        return rows

    def in_use(self) -> Tensor:
        """Rows of the real embedding and of all matched types, ascending by arrival."""
        return torch.cat([self.row.new_zeros(1), self.row[self.row > 0]])

    def names(self, growth: Sequence[str]) -> tuple[str, ...]:
        """Names of the matched types; an experience "a+b" names its types by their order."""
        found = []
        for kind, arrived in zip(self.types[self.row > 0].tolist(), self.arrived[self.row > 0].tolist(), strict=True):
            parts = growth[arrived].split("+") if 0 <= arrived < len(growth) else []
            rank = int((self.types[self.arrived == arrived] < kind).sum())
            found.append(parts[rank].strip() if rank < len(parts) else f"forgery {kind}")
        return tuple(found)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        accept_shapes(self, self._GROWING, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


class ClosedGuides(nn.Module):
    """Guides that match no more: the embeddings in use alone, in their order."""

    embeddings: Tensor

    def __init__(self, guides: Guides, growth: Sequence[str]):
        super().__init__()
        self.named = guides.names(growth)
        self.register_buffer("embeddings", guides.embeddings[guides.in_use()].clone())

    def in_use(self) -> Tensor:
        """All of them."""
        return torch.arange(1 + len(self.named), device=self.embeddings.device)

    def names(self, growth: Sequence[str]) -> tuple[str, ...]:
        """Names of the types."""
        return self.named
