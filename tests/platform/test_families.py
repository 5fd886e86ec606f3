"""The family matrix: what one forgery teaches about another."""

from __future__ import annotations

import numpy as np
import pytest

from ffd_continual.measuring.families import family_matrix, print_families
from ffd_continual.scenarios.errors import FFDError


def _made(seed: int = 0) -> tuple[np.ndarray, list[str], list[str]]:
    """Forgeries a and b leave the same trace in feature 0, c another in feature 1."""
    rng = np.random.default_rng(seed)
    kinds = ["real", "a", "b", "c"] * 200
    features = rng.standard_normal((800, 5)).astype(np.float32)
    features[:, 0] += 4.0 * np.isin(kinds, ("a", "b"))
    features[:, 1] += 4.0 * (np.array(kinds) == "c")
    return features, kinds, ["train"] * 500 + ["valid"] * 100 + ["test"] * 200


def test_alike_families_teach_each_other() -> None:
    matrix = family_matrix(*_made())
    assert matrix.loc["a", "a"] > 0.95
    assert matrix.loc["a", "b"] > 0.95
    assert matrix.loc["c", "c"] > 0.95
    assert 0.2 < matrix.loc["a", "c"] < 0.8
    text = print_families(matrix)
    assert "most alike: taught on a, tested on b" in text or "most alike: taught on b, tested on a" in text
    assert max(map(len, text.splitlines())) <= 80


def test_test_faces_never_teach() -> None:
    features, kinds, splits = _made()
    before = family_matrix(features, kinds, splits)
    forged_test = (np.array(splits) == "test") & (np.array(kinds) == "c")
    features[forged_test, 1] -= 8.0  # what is tested turns round, what was taught stays
    after = family_matrix(features, kinds, splits)
    assert after.loc["c", "c"] < 0.05
    assert after.loc["a", "b"] == before.loc["a", "b"]


def test_no_real_faces_to_test_on() -> None:
    features, kinds, splits = _made()
    splits = ["train" if s == "test" and k == "real" else s for s, k in zip(splits, kinds, strict=True)]
    with pytest.raises(FFDError, match="test holds no real faces"):
        family_matrix(features, kinds, splits)
