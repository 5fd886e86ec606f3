"""Guide embeddings: the closed form, the solver, the matching; against geometry worked by hand and against loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.guide_embeddings import (
    Guides,
    compose,
    guide_embeddings,
    match_types,
    repulsion,
    solve_directions,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


def _angle(a: Tensor, b: Tensor) -> float:
    return math.degrees(math.acos(max(-1.0, min(1.0, sum(float(x) * float(y) for x, y in zip(a, b, strict=True))))))


def _angles(guides: Tensor) -> tuple[list[float], list[float]]:
    """Degrees from the real embedding (row 0) to each other, and among the others."""
    forged = guides[1:]
    pairs = itertools.combinations(range(len(forged)), 2)
    return [_angle(guides[0], f) for f in forged], [_angle(forged[i], forged[j]) for i, j in pairs]


def test_four_types_at_120_degrees_are_at_right_angles_by_hand() -> None:
    """u = corners of a tetrahedron, e_r the fourth axis: e_i = -1/2 e_r + sqrt(3)/2 u_i = (+-1/2, +-1/2, +-1/2, -1/2).

    e_1 . e_2 = 1/4 + (-1/4) + (-1/4) + 1/4 = 0.
    """
    corners = torch.tensor([[1.0, 1, 1, 0], [1, -1, -1, 0], [-1, 1, -1, 0], [-1, -1, 1, 0]]) / math.sqrt(3)
    made = compose(torch.tensor([0.0, 0, 0, 1]), corners, math.radians(120))
    wanted = 0.5 * torch.tensor([[1.0, 1, 1, -1], [1, -1, -1, -1], [-1, 1, -1, -1], [-1, -1, 1, -1]])
    assert torch.allclose(made, wanted, atol=1e-6)
    to_real, between = _angles(guide_embeddings("simplex", 4, 16, 120.0, 0.1))
    assert to_real == pytest.approx([120.0] * 4, abs=1e-3)
    assert between == pytest.approx([90.0] * 6, abs=1e-3)


@pytest.mark.parametrize(("count", "theta"), [(2, 90.0), (3, 100.0), (8, 120.0), (32, 120.0), (5, 60.0)])
def test_the_simplex_keeps_both_angles(count: int, theta: float) -> None:
    guides = guide_embeddings("simplex", count, 64, theta, 0.1)
    assert guides.shape == (1 + count, 64)
    to_real, between = _angles(guides)
    angle = math.radians(theta)
    wanted = math.degrees(math.acos(math.cos(angle) ** 2 - math.sin(angle) ** 2 / (count - 1)))
    assert to_real == pytest.approx([theta] * count, abs=1e-2)
    assert between == pytest.approx([wanted] * len(between), abs=1e-2)
    if theta == 120.0:
        assert wanted == pytest.approx({8: 81.8, 32: 76.9}[count], abs=0.05)


def test_orthonormal_directions_leave_room_for_any_number() -> None:
    guides = guide_embeddings("orthonormal", 0, 24, 120.0, 0.1)
    assert guides.shape == (24, 24)  # the real one and D - 1 types
    to_real, between = _angles(guides)
    assert to_real == pytest.approx([120.0] * 23, abs=1e-2)
    assert between == pytest.approx([75.522] * len(between), abs=1e-2)  # arccos(cos^2 120) = arccos(1/4)


@pytest.mark.parametrize(
    ("count", "theta", "tau"), [(2, 120.0, 0.1), (4, 120.0, 0.07), (4, 100.0, 0.5), (9, 75.0, 0.2)]
)
def test_the_solver_finds_the_closed_form(count: int, theta: float, tau: float) -> None:
    closed = guide_embeddings("simplex", count, 16, theta, tau).double()
    solved = guide_embeddings("solved", count, 16, theta, tau).double()
    assert torch.allclose(closed @ closed.T, solved @ solved.T, atol=1e-5)
    assert not torch.allclose(closed, solved, atol=0.1)  # another frame: only angles are determined


def test_the_repulsion_is_the_paper_s_and_least_at_the_solution() -> None:
    tau, theta = 0.3, math.radians(110)
    real = torch.zeros(6, dtype=torch.float64)
    real[2] = 1.0
    solved = compose(real, solve_directions(real, 4, theta, tau), theta)
    slow = 0.0
    for i in range(4):
        others = [
            math.exp(sum(float(a * b) for a, b in zip(solved[i], solved[j], strict=True)) / tau)
            for j in range(4)
            if j != i
        ]
        slow += math.log(sum(others)) / 4
    assert float(repulsion(solved, tau)) == pytest.approx(slow, rel=1e-12)
    for _ in range(20):
        moved = torch.randn(4, 6, dtype=torch.float64) * 0.1 + solved
        moved[:, 2] = 0.0
        moved = compose(real, moved / moved.norm(dim=1, keepdim=True), theta)
        assert float(repulsion(moved, tau)) > slow - 1e-12


@pytest.mark.parametrize(
    ("mode", "count", "theta", "words"),
    [
        ("cube", 4, 120.0, "learner.mode"),
        ("simplex", 0, 120.0, "learner.reserve=0"),
        ("simplex", 16, 120.0, "room for 15"),
        ("orthonormal", 16, 120.0, "room for 15"),
        ("simplex", 4, 180.0, "learner.theta"),
        ("simplex", 4, 0.0, "learner.theta"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(mode: str, count: int, theta: float, words: str) -> None:
    with pytest.raises(FFDError, match=words):
        guide_embeddings(mode, count, 16, theta, 0.1)


def test_matching_is_the_cheapest_of_all() -> None:
    for types, columns in ((2, 2), (3, 5), (4, 4)):
        means, guides = torch.randn(types, 7), torch.nn.functional.normalize(torch.randn(columns, 7), dim=1)
        costs = {}
        for chosen in itertools.permutations(range(columns), types):
            costs[chosen] = sum(float((means[i] - guides[j]).pow(2).sum()) for i, j in enumerate(chosen))
        assert tuple(match_types(means, guides)) == min(costs, key=lambda c: costs[c])


def _guides(reserve: int = 4) -> Guides:
    return Guides(guide_embeddings("simplex", reserve, 8, 120.0, 0.1))


def _arrive(guides: Guides, forgery: list[int], experience: int) -> None:
    guides.meet(torch.tensor(forgery), torch.full((len(forgery),), experience))


def test_a_new_type_moves_nothing_in_use() -> None:
    guides = _guides()
    before = guides.embeddings.clone()
    _arrive(guides, [0, 2, 2, 1], 0)
    assert guides.types.tolist() == [1, 2]
    near = guides.embeddings[[0, 3, 3, 1]]  # type 2 stands at row 3, type 1 at row 1
    guides.match(near, torch.tensor([0, 2, 2, 1]))
    assert guides.row.tolist() == [1, 3]
    guides.match(guides.embeddings[[3, 2]], torch.tensor([1, 2]))  # still open: they may change places
    assert guides.row.tolist() == [3, 2]
    guides.close(1)
    _arrive(guides, [0, 5], 1)
    # The newcomer stands nearest to type 1's row, which is taken; the old ones now lie elsewhere, and stay matched.
    wish = torch.stack([guides.embeddings[1], guides.embeddings[4], guides.embeddings[3] + 0.1 * guides.embeddings[4]])
    guides.match(wish, torch.tensor([1, 2, 5]))
    assert guides.row.tolist() == [3, 2, 4]
    assert torch.equal(guides.embeddings, before)
    assert guides.rows_of(torch.tensor([5, 0, 1, 2])).tolist() == [4, 0, 3, 2]
    assert guides.in_use().tolist() == [0, 3, 2, 4]


def test_a_type_that_a_batch_lacks_keeps_its_own() -> None:
    guides = _guides()
    _arrive(guides, [1, 2], 0)
    guides.match(guides.embeddings[[1, 2]], torch.tensor([1, 2]))
    guides.match(guides.embeddings[[2]], torch.tensor([1]))  # wants row 2, which the absent type 2 holds
    assert guides.row[1] == 2
    assert guides.row[0] != 2


def test_only_the_types_of_ended_experiences_are_closed() -> None:
    """As in joint training, where all types are met at the first start."""
    guides = _guides()
    guides.meet(torch.tensor([1, 2, 3]), torch.tensor([0, 1, 2]))
    guides.match(guides.embeddings[[1, 2, 3]], torch.tensor([1, 2, 3]))
    guides.close(2)
    assert guides.closed.tolist() == [True, True, False]
    assert guides.names(["alpha", "beta"]) == ("alpha", "beta", "forgery 3")


def test_two_types_of_one_experience_have_their_own_names() -> None:
    guides = _guides()
    _arrive(guides, [0, 4], 0)
    _arrive(guides, [2, 1], 1)
    guides.match(guides.embeddings[[1, 2, 3]], torch.tensor([4, 1, 2]))
    assert guides.types.tolist() == [4, 1, 2]
    assert guides.names(["delta", "alpha+beta"]) == ("delta", "alpha", "beta")


def test_a_full_space_says_so() -> None:
    guides = _guides(reserve=2)
    _arrive(guides, [1, 2], 0)
    with pytest.raises(FFDError, match="learner.reserve"):
        _arrive(guides, [3], 1)


def test_matches_survive_a_checkpoint() -> None:
    guides, fresh = _guides(), _guides()
    _arrive(guides, [1, 2], 0)
    guides.match(guides.embeddings[[4, 2]], torch.tensor([1, 2]))
    guides.close(1)
    fresh.load_state_dict(guides.state_dict())
    assert fresh.row.tolist() == [4, 2]
    assert fresh.closed.tolist() == [True, True]
    assert torch.equal(fresh.embeddings, guides.embeddings)
