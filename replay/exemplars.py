"""The table of exemplars: candidates for the memory and its content. One row an exemplar, M rows, D features.

An exemplar is a row of the manifest, not a picture: pictures stay where the manifest says, or in the run's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffd_continual.scenarios.errors import FFDError

REAL, FORGED = 0, 1


@dataclass(frozen=True)
class ExemplarTable:
    """Columns of equal length M; build one with `ExemplarTable.of`, which fills what is left out.

    row: manifest row, unique. forgery: the *experience's* forgery, also for its real faces, so that reals are shared
    fairly between experiences. label: 0 real, 1 forged. group: identity or video. score: probability of being forged,
    in [0, 1]. logit: the model's z when stored, NaN for none. size: bytes of the picture. stamp: number of the update
    that admitted the row. key: random number in [0, 1) drawn once when first offered, kept while stored.
    feature: (M, D), D = 0 when there are none.
    """

    row: NDArray[np.int64]
    forgery: NDArray[np.str_]
    label: NDArray[np.int8]
    group: NDArray[np.str_]
    score: NDArray[np.float32]
    logit: NDArray[np.float32]
    size: NDArray[np.int64]
    stamp: NDArray[np.int64]
    key: NDArray[np.float64]
    feature: NDArray[np.float32]

    @staticmethod
    def of(
        row: Sequence[int] | NDArray[Any],
        forgery: str | Sequence[str] | NDArray[Any],
        label: Sequence[int] | NDArray[Any],
        *,
        group: str | Sequence[str] | NDArray[Any] = "",
        score: float | Sequence[float] | NDArray[Any] = 0.5,
        logit: float | Sequence[float] | NDArray[Any] = float("nan"),
        size: int | Sequence[int] | NDArray[Any] = 0,
        feature: NDArray[Any] | None = None,
    ) -> ExemplarTable:
        """A checked table; single values are repeated M times. FFDError when columns do not fit each other."""
        rows = np.asarray(row, dtype=np.int64).reshape(-1)
        count = len(rows)

        def column(name: str, values: Any, dtype: Any) -> NDArray[Any]:
            array = np.asarray(values).astype(dtype)
            if array.ndim == 0:
                return np.full(count, array)
            if array.shape != (count,):
                raise FFDError(f"exemplar column {name!r} has shape {array.shape}, but there are {count} rows")
            return array

        features = np.zeros((count, 0)) if feature is None else np.asarray(feature)
        if features.ndim != 2 or len(features) != count:
            raise FFDError(f"exemplar features must be ({count}, D), got {features.shape}")
        table = ExemplarTable(
            row=rows,
            forgery=column("forgery", forgery, np.str_),
            label=column("label", label, np.int8),
            group=column("group", group, np.str_),
            score=column("score", score, np.float32),
            logit=column("logit", logit, np.float32),
            size=column("size", size, np.int64),
            stamp=np.zeros(count, dtype=np.int64),
            key=np.zeros(count),
            feature=features.astype(np.float32),
        )
        if not np.isin(table.label, (REAL, FORGED)).all():
            raise FFDError(f"exemplar labels must be 0 (real) or 1 (forged), got {np.unique(table.label).tolist()}")
        if len(np.unique(rows)) != count:
            raise FFDError("the same manifest row is offered twice as an exemplar; give each row once")
        if not ((table.score >= 0) & (table.score <= 1)).all():
            raise FFDError("exemplar scores must be probabilities in [0, 1]; pass z as `logit`, not as `score`")
        if (table.size < 0).any():
            raise FFDError("exemplar sizes must be bytes, 0 or more")
        return table

    def __len__(self) -> int:
        return len(self.row)

    @property
    def dim(self) -> int:
        """D; 0 when no features are stored."""
        return int(self.feature.shape[1])

    def take(self, positions: Sequence[int] | NDArray[Any]) -> ExemplarTable:
        """The rows at these positions, in this order."""
        where = np.asarray(positions)
        if where.dtype != np.bool_:
            where = where.astype(np.int64)
        return replace(self, **{field.name: getattr(self, field.name)[where] for field in fields(self)})

    def join(self, other: ExemplarTable) -> ExemplarTable:
        """Both tables' rows; an empty one joins anything. FFDError when their features differ in length."""
        if len(other) == 0:
            return self
        if len(self) == 0:
            return other
        if self.dim != other.dim:
            raise FFDError(
                f"exemplars with features of length {self.dim} cannot join others of length {other.dim}; offer all "
                "candidates with the same features, or none"
            )
        return replace(
            self,
            **{
                field.name: np.concatenate([getattr(self, field.name), getattr(other, field.name)])
                for field in fields(self)
            },
        )

    def item_bytes(self) -> NDArray[np.int64]:
        """Bytes (M,) of each exemplar: its picture, its stored features (float32), its stored logit (float32)."""
        extra = 4 * self.dim + np.where(np.isnan(self.logit), 0, 4)
        return np.asarray(self.size + extra, dtype=np.int64)
