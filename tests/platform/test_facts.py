"""Thresholds from validation scores: counted by hand, refused beyond what the faces can tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ffd_continual.measuring.calibration import Calibration
from ffd_continual.runs.facts import NAME, Facts, Framing, framing_of, read_facts, write_facts
from ffd_continual.scenarios.errors import FFDError


def facts(real: list[float], forged: list[float], experience: int = 2) -> Facts:
    scores = np.sort(np.array(real, float)), np.sort(np.array(forged, float))
    framing = Framing(0.5, 0.5, 0.54)
    return Facts(experience, Calibration(2.0, -1.0), 0.25, *scores, len(real), len(forged), 0.2, 0.1, framing)


def test_thresholds_keep_their_promise_for_every_rate() -> None:
    rng = np.random.default_rng(0)
    real, forged = np.round(rng.normal(0, 1, 40), 1), np.round(rng.normal(2, 1, 50), 1)  # rounded: with ties
    one = facts(real.tolist(), forged.tolist())
    for count in range(1, 40):
        cut = one.forged_from(count / 40)
        false = int((real >= cut).sum())
        assert false <= count
        lower = np.max(real[real < cut])  # the next lower real score taken in would break the promise
        assert int((real >= lower).sum()) > count
    for count in range(1, 50):
        cut = one.real_below(count / 50)
        assert int((forged < cut).sum()) <= count
        above = forged[forged > cut]
        assert not len(above) or int((forged < above.min()).sum()) > count


def test_more_exactness_than_the_faces_have_is_refused() -> None:
    one = facts(list(range(20)), list(range(5, 15)))
    assert one.forged_from(0.05) == pytest.approx(18.5)
    with pytest.raises(FFDError, match=r"fpr 0.01 asks for more than the 20 real validation faces .*Ask for 0.05"):
        one.forged_from(0.01)
    with pytest.raises(FFDError, match=r"band 0.09 asks for more than the 10 forged .*Ask for 0.1 "):
        one.rule(0.05, 0.09)
    for wrong in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(FFDError, match="share above 0 and below 1"):
            one.forged_from(wrong)


def test_the_rule_between_its_two_thresholds() -> None:
    rule = facts(list(range(20)), list(range(5, 25))).rule(0.05, 0.1)
    assert (rule.forged, rule.real) == (18.5, 7.0)
    assert [rule.decide(z) for z in (6.9, 7.0, 18.4, 18.5)] == ["real", "no decision", "no decision", "forged"]
    apart = facts([0, 1, 2, 3] * 5, [10, 11] * 10).rule(0.05, 0.05)
    assert apart.real <= apart.forged  # well apart: the band never turns round
    none = facts(list(range(20)), list(range(5, 25))).rule(0.05, 0)
    assert none.real == none.forged
    few = facts([0.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0]).rule()
    assert [few.fpr, few.band] == [pytest.approx(1 / 3), 0.25]
    with pytest.raises(FFDError, match="without validation faces"):
        facts([], []).rule()


def test_what_is_written_comes_back_and_an_older_one_never_replaces_it(tmp_path: Path) -> None:
    one = facts([0.0, 1.0], [2.0, 3.0])
    write_facts(tmp_path, one)
    read = read_facts(tmp_path, 2)
    assert (read.real.tolist(), read.forged.tolist()) == ([0.0, 1.0], [2.0, 3.0])
    assert (read.calibration, read.framing, read.reals) == (one.calibration, one.framing, 2)
    write_facts(tmp_path, facts([5.0], [6.0], experience=1))
    assert read_facts(tmp_path, 2).reals == 2
    with pytest.raises(FFDError, match="not finished"):
        read_facts(tmp_path, 3)
    (tmp_path / NAME).write_text("{")
    with pytest.raises(FFDError, match="is damaged .*ffd resume"):
        read_facts(tmp_path, 2)
    values = {"format": 99}
    (tmp_path / NAME).write_text(json.dumps(values))
    with pytest.raises(FFDError, match="has format 99"):
        read_facts(tmp_path, 2)
    write_facts(tmp_path, one)  # a damaged one is written anew
    assert read_facts(tmp_path, 2).reals == 2
    with pytest.raises(FFDError, match="has no detector.json"):
        read_facts(tmp_path / "nowhere", 2)


def test_framing_of_landmarks() -> None:
    marks = np.full((3, 68, 2), np.nan, np.float32)
    assert framing_of(marks, 100) is None
    marks[1] = np.linspace(0, 1, 68)[:, None] * np.array([40, 50]) + np.array([29.5, 24.5])
    found = framing_of(marks, 100)
    assert found is not None
    assert (found.extent, found.x, found.y) == pytest.approx((0.5, 0.5, 0.5))
