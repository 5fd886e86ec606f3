"""Joint training: all experiences at once from the first step on. The upper bound, not a continual strategy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ffd_continual.strategies.strategy import Rows, Strategy


@dataclass(frozen=True)
class JointConfig:
    """Has no settings."""


class Joint(Strategy):
    """Every step draws from the whole stream; in all, as many steps as the others take."""

    config_type = JointConfig
    retrains = True

    def pool(self, experience: int) -> Rows:
        """The union of all experiences, whichever is current."""
        return np.concatenate(self.context.train_rows)
