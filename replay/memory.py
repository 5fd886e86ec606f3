"""The exemplar memory: a fixed budget of stored faces, shared fairly over forgery x label x identity or video.

A cell is one forgery (the experience's, real faces included) with one label. `share` divides the budget over cells;
inside a cell a policy of `selection` chooses, no identity or video giving more than its even part. Everything is a
pure function of the candidates, their order and the generators passed, so a resumed run remembers the same faces.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ffd_continual.replay.exemplars import FORGED, REAL, ExemplarTable
from ffd_continual.replay.selection import Reservoir, SelectionPolicy, group_cap, in_order
from ffd_continual.scenarios.errors import FFDError

Cell = tuple[str, int]
_NUMBERS = ("row", "label", "score", "logit", "size", "stamp", "key", "feature")


@dataclass(frozen=True)
class Budget:
    """How much may be stored: `items` faces, or `nbytes` of pictures, stored features and logits. One of the two."""

    items: int | None = None
    nbytes: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.items, self.nbytes) if value is not None]
        if len(given) != 1 or given[0] < 0:
            raise FFDError(
                f"a memory budget is either items or nbytes, 0 or more; got items={self.items}, nbytes={self.nbytes}"
            )


def share(n: int, room: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divide n items over cells: room (F, 2) is what each forgery's real and forged cell can take -> quotas (F, 2).

    Largest remainder at equal weights, dealt one item at a time: to the label with fewer so far (forged first), there
    to the forgery with fewest of it, then with fewest in all, then the earlier one. So, where there is room, labels
    differ by one at most, and so do the cells of a label, and with n >= F every forgery keeps something. What a small
    cell cannot take goes to the others. The quotas for n + 1 are those for n plus one item.
    """
    quota = np.zeros_like(room)
    large = int(n) + 1
    for _ in range(min(int(n), int(room.sum()))):
        free = quota < room
        totals = quota.sum(axis=0)
        label = REAL if free[:, REAL].any() and (totals[REAL] < totals[FORGED] or not free[:, FORGED].any()) else FORGED
        need = quota[:, label] * (2 * large) + quota.sum(axis=1)
        quota[int(np.where(free[:, label], need, np.iinfo(np.int64).max).argmin()), label] += 1
    return quota


class ExemplarMemory:
    """Stored exemplars in `table` (cell by cell in order of arrival, most worth keeping first in each).

    `store_features` / `store_logits` keep those columns after selection, and count them in the budget; a policy that
    needs features can take more candidates for a cell that it already holds only when they are stored.
    `balance_groups` off ignores identities and videos.
    """

    def __init__(
        self,
        budget: Budget,
        policy: SelectionPolicy | None = None,
        *,
        balance_groups: bool = True,
        store_features: bool = False,
        store_logits: bool = True,
    ) -> None:
        self.budget = budget
        self.policy: SelectionPolicy = Reservoir() if policy is None else policy
        self.balance_groups = balance_groups
        self.store_features = store_features
        self.store_logits = store_logits
        self.table = ExemplarTable.of([], "", [])
        self.forgeries: list[str] = []
        self.updates = 0

    def __len__(self) -> int:
        return len(self.table)

    def bytes(self) -> int:
        """Bytes of all stored pictures, features and logits."""
        return int(self.table.item_bytes().sum())

    def counts(self) -> dict[Cell, int]:
        """Stored exemplars by (forgery, label), cells that lost all of theirs included."""
        return {
            (forgery, label): int(((self.table.forgery == forgery) & (self.table.label == label)).sum())
            for forgery in self.forgeries
            for label in (REAL, FORGED)
        }

    def update(self, candidates: ExemplarTable, rng: np.random.Generator) -> None:
        """Offer candidates; afterwards the memory holds its budget's worth, chosen among them and what it held.

        A row already stored takes the candidate's new score, logit and feature, but keeps its key and stamp: offering a
        face twice does not double its chance. Draws len(candidates) numbers from `rng`, whatever the policy.
        FFDError when the policy needs features that candidates or stored exemplars lack.
        """
        keys = rng.random(len(candidates))
        if self.policy.needs_features and len(candidates) and candidates.dim == 0:
            raise FFDError(f"{type(self.policy).__name__} selects by features, but the candidates have none")
        self.updates += 1
        stamps = np.full(len(candidates), self.updates, dtype=np.int64)
        stored_at = {int(row): position for position, row in enumerate(self.table.row)}
        for position, row in enumerate(candidates.row.tolist()):
            if row in stored_at:
                keys[position] = self.table.key[stored_at[row]]
                stamps[position] = self.table.stamp[stored_at[row]]
        candidates = replace(candidates, key=keys, stamp=stamps)
        held = self._cells(self.table.take(~np.isin(self.table.row, candidates.row)))
        offered = self._cells(candidates)
        for forgery, _ in offered:
            if forgery not in self.forgeries:
                self.forgeries.append(forgery)
        pools: dict[Cell, ExemplarTable] = dict(held)
        for cell, table in offered.items():
            stored = held.get(cell)
            if stored is not None and self.policy.needs_features and stored.dim == 0:
                raise FFDError(
                    f"the memory already holds exemplars of {cell[0]!r} without features, so "
                    f"{type(self.policy).__name__} cannot weigh them against new ones; set store_features, or offer "
                    "all faces of a forgery at once"
                )
            pools[cell] = table if stored is None else stored.join(table)
        self.table = self._fit(pools, fresh=set(offered))

    def resize(self, budget: Budget) -> None:
        """Change the budget; a smaller one drops each cell's least worthy exemplars, a larger one fills up later."""
        self.budget = budget
        self.table = self._fit(self._cells(self.table), fresh=set())

    def positions(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Positions (n,) in `table` of a draw balanced over forgery x label; empty when nothing is stored.

        Which cells give one more than others is drawn anew each time. A cell gives each of its exemplars once before
        any twice. A function of the memory, n and the generator's state only.
        """
        cells = self._where()
        names = [name for name in self.forgeries if any((name, label) in cells for label in (REAL, FORGED))]
        if not names or n <= 0:
            return np.zeros(0, dtype=np.int64)
        names = [names[index] for index in rng.permutation(len(names))]
        room = np.array([[n if (name, label) in cells else 0 for label in (REAL, FORGED)] for name in names])
        quota = share(n, room)
        drawn: list[int] = []
        for index, name in enumerate(names):
            for label in (REAL, FORGED):
                left = int(quota[index, label])
                while left > 0:
                    part = rng.permutation(cells[name, label])[:left]
                    drawn.extend(part.tolist())
                    left -= len(part)
        return np.asarray(rng.permutation(np.array(drawn, dtype=np.int64)), dtype=np.int64)

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Manifest rows (n,) of a balanced draw; see `positions`."""
        return self.table.row[self.positions(n, rng)]

    def state_dict(self) -> dict[str, Any]:
        """{"tensors": numbers as tensors, "json": names and counters}: what safetensors and JSON can hold."""
        table = self.table
        forgeries, forgery_codes = np.unique(table.forgery, return_inverse=True)
        groups, group_codes = np.unique(table.group, return_inverse=True)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(table, name))).clone() for name in _NUMBERS}
        tensors["forgery"] = torch.from_numpy(forgery_codes.reshape(-1).astype(np.int64))
        tensors["group"] = torch.from_numpy(group_codes.reshape(-1).astype(np.int64))
        return {
            "tensors": tensors,
            "json": {
                "forgery": forgeries.tolist(),
                "group": groups.tolist(),
                "forgeries": list(self.forgeries),
                "updates": self.updates,
                "budget": asdict(self.budget),
                "policy": type(self.policy).__name__,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, the budget as last resized included. FFDError under another policy."""
        tensors, names = state["tensors"], state["json"]
        mine = type(self.policy).__name__
        if names["policy"] != mine:
            raise FFDError(
                f"this memory was filled by {names['policy']}, not by {mine}; use the policy it was saved with"
            )
        columns = {name: tensors[name].cpu().numpy().copy() for name in _NUMBERS}
        for name in ("forgery", "group"):
            columns[name] = np.array(names[name], dtype=np.str_)[tensors[name].cpu().numpy()]
        self.table = ExemplarTable(**columns)
        self.forgeries = list(names["forgeries"])
        self.updates = int(names["updates"])
        self.budget = Budget(**names["budget"])

    def _where(self, table: ExemplarTable | None = None) -> dict[Cell, NDArray[np.int64]]:
        """Positions of each cell that has any, in order."""
        table = self.table if table is None else table
        found: dict[Cell, list[int]] = {}
        for position, cell in enumerate(zip(table.forgery.tolist(), table.label.tolist(), strict=True)):
            found.setdefault(cell, []).append(position)
        return {cell: np.array(positions, dtype=np.int64) for cell, positions in found.items()}

    def _cells(self, table: ExemplarTable) -> dict[Cell, ExemplarTable]:
        return {cell: table.take(positions) for cell, positions in self._where(table).items()}

    def _fit(self, pools: dict[Cell, ExemplarTable], fresh: set[Cell]) -> ExemplarTable:
        """The pools cut to the budget; cells in `fresh` are chosen by the policy, others keep their order."""
        if self.budget.items is not None:
            return self._choose(pools, fresh, self.budget.items)
        assert self.budget.nbytes is not None
        best = self._choose(pools, fresh, 0)
        if not pools:
            return best
        sizes = np.concatenate([self._strip(pool).item_bytes() for pool in pools.values()])
        mean = max(1.0, float(sizes.mean()))
        # Exemplars differ in size, so the greatest number of items that fits is searched for: from what the bytes
        # left would hold on average, and by halving after a try that was too much (policies can cost seconds a try).
        low, spent, missed = 0, 0, False
        high = int((np.cumsum(np.sort(sizes)) <= self.budget.nbytes).sum())
        while low < high:
            guess = low + max(1, int((self.budget.nbytes - spent) / mean))
            middle = (low + high + 1) // 2 if missed else min(guess, high)
            table = self._choose(pools, fresh, middle)
            cost = int(table.item_bytes().sum())
            missed = cost > self.budget.nbytes
            if missed:
                high = middle - 1
            else:
                low, spent, best = middle, cost, table
        return best

    def _choose(self, pools: dict[Cell, ExemplarTable], fresh: set[Cell], n: int) -> ExemplarTable:
        room = np.array(
            [[len(pools.get((name, label), ())) for label in (REAL, FORGED)] for name in self.forgeries], dtype=np.int64
        ).reshape(-1, 2)
        quota = share(n, room)
        kept = ExemplarTable.of([], "", [])
        for index, name in enumerate(self.forgeries):
            for label in (REAL, FORGED):
                left = int(quota[index, label])
                if left == 0:
                    continue
                pool = pools[name, label]
                if not self.balance_groups:
                    pool = replace(pool, group=np.zeros(len(pool), dtype=np.str_))
                cap = group_cap(pool.group, left)
                if (name, label) in fresh:
                    where = self.policy(pool, left, cap)
                else:
                    where = in_order(np.arange(len(pool)), left, pool.group, cap)
                kept = kept.join(self._strip(pools[name, label].take(where)))
        return kept

    def _strip(self, table: ExemplarTable) -> ExemplarTable:
        if not self.store_features:
            table = replace(table, feature=np.zeros((len(table), 0), dtype=np.float32))
        if not self.store_logits:
            table = replace(table, logit=np.full(len(table), np.nan, dtype=np.float32))
        return table
