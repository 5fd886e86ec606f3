"""Cumulative training: each experience trains on all faces seen so far. Unlimited memory, no look into the future."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ffd_continual.strategies.strategy import Rows, Strategy


@dataclass(frozen=True)
class CumulativeConfig:
    """Has no settings."""


class Cumulative(Strategy):
    """Draws from the union of the experiences up to the current one."""

    config_type = CumulativeConfig

    def pool(self, experience: int) -> Rows:
        """All train rows so far."""
        return np.concatenate(self.context.train_rows[: experience + 1])

    def stored_bytes(self) -> int:
        """Every face counts."""
        return sum(len(rows) for rows in self.context.train_rows) * int(self.context.sources.table.pictures[0].nbytes)
