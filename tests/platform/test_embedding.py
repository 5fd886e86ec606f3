"""Where faces lie in the common features: the axes, which faces are shown, and the report's part."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from ffd_continual.reporting.embedding import embedding
from ffd_continual.reporting.report import write_report
from ffd_continual.runs import embedding as embeddings
from ffd_continual.runs.assemble import Parts
from ffd_continual.runs.embedding import principal, shown
from ffd_continual.scenarios.errors import FFDError


def test_axes_worked_by_hand() -> None:
    """Points on a cross: +-3 along (3, 4) / 5, +-1 along (-4, 3) / 5. Sums of squares 18 and 2: shares .9 and .1. The
    largest weight of the first axis is its second, of the second axis its first: both are turned to be positive."""
    along, across = np.array([3, 4]) / 5, np.array([-4, 3]) / 5
    features = np.stack([3 * along, -3 * along, across, -across]) + [7.0, -2.0]
    places, shares = principal(features)
    np.testing.assert_allclose(places, [[3, 0], [-3, 0], [0, -1], [0, 1]], atol=1e-12)
    np.testing.assert_allclose(shares, [0.9, 0.1])


def test_axes_keep_what_they_can() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 6)) * [9, 5, 1, 1, 1, 1]
    places, shares = principal(features)
    assert places.shape == (50, 2)
    np.testing.assert_allclose(places.var(0, ddof=0).sum() / features.var(0, ddof=0).sum(), sum(shares))
    order = rng.permutation(50)
    np.testing.assert_allclose(principal(features[order])[0], places[order], atol=1e-9)
    np.testing.assert_allclose(principal(features + 3)[0], places, atol=1e-9)
    np.testing.assert_allclose(principal(np.ones((4, 3)))[0], 0.0)
    assert principal(rng.normal(size=(5, 1)))[0].shape == (5, 2), "a learner with one feature has one axis"


def test_every_stream_is_shown_and_a_shared_face_once(monkeypatch: pytest.MonkeyPatch) -> None:
    index: dict[tuple[str, str], NDArray[np.int64]] = {
        ("test", "a"): np.arange(0, 40), ("test", "b"): np.arange(40, 60), ("unseen", "u"): np.arange(60, 62),
    }  # fmt: skip
    slot = np.arange(62)
    slot[59] = 0  # a real face of a's stream, again
    scenario = SimpleNamespace(experiences=("a", "b"), unseen=("u",), index=lambda stream, name: index[(stream, name)])
    parts = cast(Parts, SimpleNamespace(scenario=scenario, sources=SimpleNamespace(table=SimpleNamespace(slot=slot))))
    monkeypatch.setattr(embeddings, "FACES", 30)
    rows, told = shown(parts)
    assert told.groupby(["on", "stream"], sort=False).size().tolist() == [10, 9, 2]
    assert 59 not in rows
    assert {0, 39} <= set(rows.tolist()), "from the first of a stream to its last"
    assert len(told) == len(rows) == len(set(slot[rows]))


def _table() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    streams = [("alpha", "test"), ("beta", "test"), ("gamma", "unseen")]
    rows: list[dict[str, Any]] = [
        {"on": on, "stream": stream, "label": k % 2, "x": rng.normal(), "y": rng.normal()}
        for on, stream in streams for k in range(10)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_report_has_a_cloud_a_forgery(tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"after": after, "on": on, "stream": stream, "label": k % 2, "z": rng.normal() + k % 2, "path": str(k)}
        for after in (-1, 0, 1) for on, stream in (("alpha", "test"), ("beta", "test"), ("gamma", "unseen"))
        for k in range(8)
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "predictions.parquet")
    summary = {"order": ["alpha", "beta"], "embedding": {"faces": 30, "explained": [0.614, 0.2]}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page = write_report(tmp_path, 10).read_text()
    assert "common features" not in page, "the table is not there"
    _table().to_parquet(tmp_path / "embedding.parquet")
    page = write_report(tmp_path, 10).read_text()
    assert 'id="features"' in page
    assert "61 and 20 % of their variance" in page
    for name in ("alpha", "beta", "gamma"):
        assert f'aria-label="{name}: 5 forged faces among 15 real ones"' in page
    assert (tmp_path / "report" / "features.png").stat().st_size > 10_000
    assert embedding(cast(Any, SimpleNamespace(embedding=None))) == ""
    (tmp_path / "embedding.parquet").write_bytes(b"cut short")
    with pytest.raises(FFDError, match=r"embedding\.parquet is damaged"):
        write_report(tmp_path, 10)
    _table().drop(columns="y").to_parquet(tmp_path / "embedding.parquet")
    with pytest.raises(FFDError, match="no column y"):
        write_report(tmp_path, 10)
