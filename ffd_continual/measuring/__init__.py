"""Measures: metrics, calibration, the matrix and its intervals, videos, maps."""
