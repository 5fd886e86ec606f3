"""Sweeps: grids, claims on cells, engines, rows."""
