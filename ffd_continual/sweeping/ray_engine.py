"""Cells as tasks of a Ray cluster, one task a cell, which takes as many of a node's CPUs as the cell has threads.

All nodes need this package, the data under the same paths, and the sweep's folder: claims and rows lie there as for any
other sweep. A task whose worker or node dies is begun again by the sweep (Ray's own retries are off: they would run
into the claim of a node that may be alive). Ray is an extra: `pip install 'ffd-continual[ray]'`.
"""

from __future__ import annotations

import importlib
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.sweeping.grid import Cell
from ffd_continual.sweeping.sweep import Outcome, run_cell
from ffd_continual.terminal import warnings_as_remarks


class RayTasks:
    """At most `jobs` tasks at a time (0: as many as the cluster's CPUs carry), each with `gpus` of a node's GPUs.

    address: a running cluster's, e.g. "auto" or "head:6379"; "local" starts one for this sweep on this machine that
    only its own processes can reach, of `jobs` times the cells' threads CPUs. Raises FFDError where Ray is missing, no
    cluster answers, or no node could ever run one of the cells.
    """

    def __init__(self, address: str, jobs: int, cells: Sequence[Cell], gpus: float = 0.0):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        if address == "local":
            # Ray's switch for keeping to the loopback interface, read when it is imported; without it Ray listens to
            # the network on Linux, whatever `_node_ip_address` says.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        try:
            self._ray = importlib.import_module("ray")
        except ImportError as error:
            raise FFDError(
                "--engine ray needs Ray, which is not installed: pip install 'ffd-continual[ray]' here and on every "
                "node of the cluster; `--jobs N` runs cells side by side on this machine without it."
            ) from error
        threads = max((cell.threads for cell in cells), default=1)
        here: dict[str, Any] = {}
        if address == "local":
            here = {"num_cpus": max(1, jobs) * threads, "include_dashboard": False}
        try:
            _reach(address)
            self._ray.init(address=address, log_to_driver=False, configure_logging=False, **here)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            reason = (str(error).splitlines() or ["no reason given"])[0].rstrip(".")
            raise FFDError(
                f"no Ray cluster answers at {address}: {reason}. `ray start --head` makes one "
                "on this machine; without --address and RAY_ADDRESS the sweep starts its own."
            ) from error
        self._gpus = gpus
        self._tasks: dict[Any, Cell] = {}
        self._stopped = False
        self.slots = jobs or max(1, int(self._ray.cluster_resources().get("CPU", 1)) // threads)
        self._check(threads)

    def _check(self, threads: int) -> None:
        """A task that no node can carry would wait for ever."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(node.get("CPU", 0) >= threads and node.get("GPU", 0) >= self._gpus for node in nodes):
            return
        found = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        self.close()
        raise FFDError(
            f"a cell wants {threads} CPUs (train.threads) and {self._gpus:g} GPUs (--gpus), and no node of the cluster "
            f"has them: {found}. Set fewer threads, e.g. --set train.threads=1, or fewer --gpus."
        )

    def submit(self, cell: Cell) -> None:
        """Begin a task."""
        task = self._ray.remote(_task).options(
            num_cpus=cell.threads, num_gpus=self._gpus, max_retries=0, name=f"sweep {cell.name}"
        )
        self._tasks[task.remote(cell)] = cell

    def wait(self, seconds: float) -> list[tuple[Cell, Outcome]]:
        """What the tasks return; a task that Ray lost is one whose process died."""
        if not self._tasks:
            return []
        ready, _ = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
        return [(self._tasks.pop(task), self._outcome(task)) for task in ready]

    def _outcome(self, task: Any) -> Outcome:
        errors = self._ray.exceptions
        try:
            outcome = self._ray.get(task)
        except errors.TaskCancelledError:
            return Outcome("stopped")
        except errors.RayError as error:
            if self._stopped:
                return Outcome("stopped")
            last = (str(error).strip().splitlines() or [""])[-1].strip()
            return Outcome("died", f"its Ray task was lost: {type(error).__name__}: {last}")
        assert isinstance(outcome, Outcome)
        return outcome

    def stop(self) -> None:
        """Cancel: a task that runs gets Ctrl-C, one that waits is taken from the queue."""
        force, self._stopped = self._stopped, True
        for task in self._tasks:
            self._ray.cancel(task, force=force)

    def close(self) -> None:
        """Leave the cluster; one of the sweep's own ends."""
        until = time.monotonic() + 10
        while self._tasks and self._stopped and time.monotonic() < until:
            self.wait(0.5)
        self._ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nothing listens at host:port; Ray would try again for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), 10).close()


def _task(cell: Cell) -> Outcome:
    """Runs on a node. Ray has set OMP_NUM_THREADS to the task's CPUs before this module was imported."""
    with warnings_as_remarks():
        return run_cell(cell, log=True)
