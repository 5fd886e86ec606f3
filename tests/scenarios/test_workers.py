"""Processes that make faces: what they run of a script, and what is told where one dies."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.workers import worker_pool

PLAIN = """
from ffd_continual.scenarios.studio.portrait import studio_faces
print(f"script of {__name__}", flush=True)
print(len(studio_faces(4, 1, 0, 48, 2)), "faces")
"""
OWN = """
import numpy as np
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.making import forge_faces
from ffd_continual.scenarios.studio.portrait import studio_faces

print(f"script of {__name__}", flush=True)

class Negative:
    name = "negative"

    def forge(self, target, others, rng):
        return Forged(255 - target.image, np.full(target.image.shape[:2], 255, np.uint8), None)

def job():
    faces = studio_faces(4, 1, 0, 48, 1)
    made = list(forge_faces(faces, ["train", "train", "valid", "test"], [Negative()], size=32, workers=2))
    print(sum(one.forged is not None for one in made), "forged")

"""
KILLED = """
import gc, os, signal
from ffd_continual.scenarios.workers import worker_pool
with worker_pool(1, gc.disable) as pool:
    print(*{pool.submit(os.getpid).result() for _ in range(9)}, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
GUARD = 'if __name__ == "__main__":\n    '


def told(script: str, folder: Path) -> tuple[list[str], str]:
    path = folder / "mine.py"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=120, check=False)
    return done.stdout.splitlines(), done.stderr


def test_a_script_is_not_run_again_in_each_process(tmp_path: Path) -> None:
    said, errors = told(PLAIN, tmp_path)
    assert said == ["script of __main__", "4 faces"], errors


@pytest.mark.slow
def test_a_family_of_the_script_s_own_reaches_the_processes(tmp_path: Path) -> None:
    said, errors = told(OWN + GUARD + "job()\n", tmp_path)
    assert said[0] == "script of __main__"
    assert set(said[1:-1]) == {"script of __mp_main__"}
    assert said[-1] == "4 forged", errors
    _, errors = told(OWN + "job()\n", tmp_path)
    assert "if __name__ == '__main__'" in errors.strip().splitlines()[-1]


def test_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    said, errors = told(KILLED, tmp_path)
    numbers = [int(one) for one in said[0].split()]
    assert numbers, errors
    limit = time.monotonic() + 20
    while any(Path(f"/proc/{number}").exists() for number in numbers):
        assert time.monotonic() < limit, f"of {numbers} some live on"
        time.sleep(0.05)


def test_a_process_that_dies_is_told_and_not_waited_for() -> None:
    def die() -> None:
        with worker_pool(2, gc.disable) as pool:
            list(pool.map(os._exit, [3]))

    begun = time.monotonic()
    with pytest.raises(FFDError, match="one of 2 processes that make faces died"):
        die()
    assert time.monotonic() - begun < 60


def test_processes_end_with_a_block_that_is_left_early() -> None:
    def leave() -> None:
        with worker_pool(1, gc.disable) as pool:
            assert pool.submit(abs, -1).result() == 1
            pool.submit(time.sleep, 60)
            assert multiprocessing.active_children()
            raise ZeroDivisionError

    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        leave()
    assert time.monotonic() - begun < 30
    assert multiprocessing.active_children() == []
