"""A memory as it lies in a checkpoint: choosing among its exemplars without building the strategy that owns it.

`ExemplarMemory.state_dict` gives {"tensors", "json"}; inside a strategy's state the tensors may stand behind a prefix
and the JSON behind a key ("memory"). Axes: M stored exemplars.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

COLUMNS = ("row", "label", "score", "logit", "size", "stamp", "key", "feature")
NAMED = ("forgery", "group")
_PLACES = (("", ()), ("memory.", ("memory",)))

State = tuple[dict[str, Tensor], dict[str, Any]]


def _place(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    for prefix, keys in _PLACES:
        names: Any = values
        for key in keys:
            names = names.get(key, {}) if isinstance(names, dict) else {}
        wanted = (f"{prefix}{name}" for name in (*COLUMNS, *NAMED))
        if all(name in tensors for name in wanted) and all(name in names for name in NAMED):
            return prefix, dict(names)
    return None


def stored_rows(state: State) -> NDArray[np.int64]:
    """Rows (M,) of the exemplars in a strategy's state, in the memory's order; none where it keeps no memory."""
    place = _place(*state)
    return np.zeros(0, np.int64) if place is None else state[0][f"{place[0]}row"].cpu().numpy().astype(np.int64)


def choose_stored(state: State, positions: NDArray[np.int64], rows: NDArray[np.int64]) -> State:
    """The state with the exemplars at these positions only, under new row numbers; names that are no longer used (a
    person's) leave it. A state without memory stays as it is."""
    place = _place(*state)
    if place is None:
        return state
    prefix, names = place
    tensors, where = dict(state[0]), torch.from_numpy(np.asarray(positions, np.int64))
    for name in (*COLUMNS, *NAMED):
        tensors[f"{prefix}{name}"] = tensors[f"{prefix}{name}"][where].clone()
    tensors[f"{prefix}row"] = torch.from_numpy(np.asarray(rows, np.int64))
    for name in NAMED:
        used, codes = torch.unique(tensors[f"{prefix}{name}"], return_inverse=True)
        tensors[f"{prefix}{name}"] = codes.reshape(-1)
        names[name] = [names[name][int(code)] for code in used]
    return tensors, ({**state[1], "memory": names} if prefix else names)
