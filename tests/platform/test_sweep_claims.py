"""Claims: one holder at a time, the dead outnumbered, the living respected."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ffd_continual.sweeping import claims as sweep_claims
from ffd_continual.sweeping.claims import SILENT, Claim, Owner, forget, held, myself, owner_of, take


def _write(folder: Path, name: str, owner: Owner, age: float = 0.0) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(dataclasses.asdict(owner)))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def _dead() -> Owner:
    """A process of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return dataclasses.replace(myself(), pid=process.pid)


def test_a_claim_has_one_holder_until_it_is_released(tmp_path: Path) -> None:
    claim = take(tmp_path, "a+b-0.5-s1")
    assert isinstance(claim, Claim)
    assert take(tmp_path, "a+b-0.5-s1") == myself()
    assert str(myself()).startswith(f"process {os.getpid()} on ")
    other = take(tmp_path, "a+b-0.5-s2")
    assert isinstance(other, Claim)
    claim.release()
    assert owner_of(tmp_path, "a+b-0.5-s1") is None
    with take(tmp_path, "a+b-0.5-s1") as again:  # type: ignore[union-attr]
        assert isinstance(again, Claim)
    other.release()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    _write(tmp_path, "cell.1", _dead())
    claim = take(tmp_path, "cell")
    assert isinstance(claim, Claim)
    assert claim.path.name == "cell.2"  # outnumbered, not removed
    assert take(tmp_path, "cell") == myself()
    claim.release()
    forget(tmp_path, "cell")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system tells no starting times")
def test_a_zombie_and_a_number_used_again_are_dead(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    started = sweep_claims._started(process.pid)
    assert started
    living = dataclasses.replace(myself(), pid=process.pid, started=started)
    _write(tmp_path, "living.1", living)
    _write(tmp_path, "zombie.1", living)
    _write(tmp_path, "again.1", dataclasses.replace(living, started=str(int(started) - 1)))
    again = take(tmp_path, "again")
    assert isinstance(again, Claim)
    again.release()
    assert take(tmp_path, "living") == living
    process.stdin.close()
    until = time.monotonic() + 10
    while not isinstance(zombie := take(tmp_path, "zombie"), Claim):  # never waited for
        assert time.monotonic() < until
        time.sleep(0.01)
    zombie.release()
    process.wait()


def test_another_machine_is_known_by_its_heartbeat(tmp_path: Path) -> None:
    far = Owner("far", "far/boot", os.getpid(), myself().started)
    _write(tmp_path, "beats.7", far, SILENT - 60)
    _write(tmp_path, "silent.7", far, SILENT + 60)
    assert take(tmp_path, "beats") == far
    taken = take(tmp_path, "silent")
    assert isinstance(taken, Claim)
    assert taken.path.name == "silent.8"
    taken.release()


def test_a_claim_beats_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_claims, "BEAT", 0.02)
    claim = take(tmp_path, "cell")
    assert isinstance(claim, Claim)
    os.utime(claim.path, (1000.0, 1000.0))
    until = time.monotonic() + 10
    while claim.path.stat().st_mtime < 2000:
        assert time.monotonic() < until
        time.sleep(0.01)
    claim.release()
    assert not claim.path.exists()


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_one_gets_it(tmp_path: Path, stale: bool) -> None:
    dead, count = _dead(), 12
    for turn in range(15):
        if stale:
            _write(tmp_path, f"cell{turn}.1", dead)
        gate, got = threading.Barrier(count), list[Claim]()

        def race(name: str, gate: threading.Barrier, got: list[Claim]) -> None:
            gate.wait()
            for _ in range(3):
                answer = take(tmp_path, name)
                if isinstance(answer, Claim):
                    got.append(answer)

        threads = [threading.Thread(target=race, args=(f"cell{turn}", gate, got)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        got[0].release()


def test_held_waits_for_its_turn(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with held(tmp_path, "rows"):
            order.append("second")

    with held(tmp_path, "rows"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
