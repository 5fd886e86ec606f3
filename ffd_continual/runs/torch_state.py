"""How torch and OpenCV compute in this process: with a run's threads, and the same figures every time."""

from __future__ import annotations

import cv2
import torch
import torch.utils.deterministic


def compute_alike(threads: int) -> None:
    """Set torch's threads and its deterministic algorithms, for the whole process.

    Deterministic algorithms come with filling every new tensor with NaN before it is written, which finds bugs, changes
    no figure and took a fifth of a training step: it is switched off.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)  # OpenCV's own pool would compete with torch's
    torch.use_deterministic_algorithms(True, warn_only=True)
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (a name that torch adds late)
