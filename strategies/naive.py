"""Sequential fine-tuning: nothing is kept. The lower bound of every comparison."""

from __future__ import annotations

from dataclasses import dataclass

from ffd_continual.strategies.strategy import Strategy


@dataclass(frozen=True)
class NaiveConfig:
    """Has no settings."""


class Naive(Strategy):
    """Trains on the current experience only."""

    config_type = NaiveConfig
