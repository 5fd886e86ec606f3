"""Finished runs side by side, beside published figures, and against what is claimed."""
