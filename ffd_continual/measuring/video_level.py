"""From frames to videos: three rules that turn the scores of a video's frames into the score of the video.

*mean*: the mean of all frames. *top*: the mean of the k frames with the highest scores, k = ceil(share x frames), at
least 1: a video that is forged in a few frames only is not washed out by the rest. *vote*: the share of frames whose
score reaches the detector's threshold; the video is called forged from one half on. Voting has no calibrated
probability, so its calibration error is left out; it is coarse (n frames know n + 1 scores), which costs AUC.
Axis legend: n = frames, v = videos.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ffd_continual.measuring.metrics import Floats, threshold_for_accuracy
from ffd_continual.scenarios.errors import FFDError

WAYS = ("mean", "top", "vote")
LEVELS = ("frame", "video")
MAJORITY = 0.5


@dataclass(frozen=True)
class VideoRule:
    """How frames become a video. share: of a video's frames, those that count; read by "top" alone."""

    way: str = "mean"
    share: float = 0.25

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise FFDError(f"evaluation.video must be one of {', '.join(WAYS)}, not {self.way!r}.")
        if not (math.isfinite(self.share) and 0 < self.share <= 1):
            raise FFDError(f"evaluation.video_share is a share of a video's frames, above 0 and up to 1: {self.share}.")

    @classmethod
    def told_by(cls, summary: Mapping[str, Any]) -> VideoRule:
        """The rule that a summary at video level was made by."""
        return cls(summary["rule"]["video"], summary["rule"]["video_share"])

    @property
    def words(self) -> str:
        """The rule in words, after "score of a video:"."""
        return {
            "mean": "mean of its frames",
            "top": f"mean of the highest {100 * self.share:g} % of its frames",
            "vote": "share of its frames above the threshold",
        }[self.way]


MEAN = VideoRule()


def told_apart(names: ArrayLike, datasets: ArrayLike | None) -> NDArray[np.str_]:
    """Names (n,) of videos or persons; where two data sets use one name, the data set stands before it. "" stays."""
    words = np.asarray(names, dtype=str)
    if datasets is None or not len(words):
        return words
    homes = pd.DataFrame({"name": words, "home": np.asarray(datasets, dtype=str)})
    shared = (homes.groupby("name")["home"].transform("nunique") > 1).to_numpy() & (words != "")
    return np.where(shared, np.char.add(np.char.add(homes["home"].to_numpy(str), "/"), words), words)


def names_in(table: pd.DataFrame, column: str) -> NDArray[np.str_]:
    """A column of names of a table of predictions (n,), told apart by data set where it knows that; "" without it."""
    if column not in table.columns:
        return np.full(len(table), "", dtype="U1")
    datasets = table["dataset"].fillna("").astype(str) if "dataset" in table.columns else None
    return told_apart(table[column].fillna("").astype(str), datasets)


def has_videos(predictions: pd.DataFrame) -> bool:
    """Whether some model judged two frames of one video: otherwise both levels are the same."""
    keys = [key for key in ("after", "on", "stream", "label") if key in predictions.columns]
    named = predictions.assign(video=names_in(predictions, "video"))
    return bool(named[named["video"] != ""].duplicated([*keys, "video"]).any())


def _counted(of: NDArray[np.int64], z: Floats, frames: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which frames (n,) are among the highest ceil(share x frames) of their video; ties: the earlier frame."""
    order = np.lexsort((np.arange(len(z)), -z, of))
    start = np.cumsum(frames) - frames
    rank = np.empty(len(z), dtype=np.int64)
    rank[order] = np.arange(len(z)) - start[of[order]]
    # The small step back: 0.1 of 30 frames is 3.0000000000000004 in binary, and means 3.
    wanted = np.maximum(np.ceil(share * frames - 1e-9).astype(np.int64), 1)
    return np.asarray(rank < wanted[of])


def video_level(
    labels: ArrayLike, scores: Mapping[str, ArrayLike], videos: ArrayLike, rule: VideoRule = MEAN
) -> dict[str, NDArray[Any]]:
    """{"label", "first" (index of a frame of it), and the given scores of each video (v,)} by the rule.

    labels (n,); scores (n,) by name: z (needed unless the rule is the mean), margin = z - threshold (needed to vote)
    and p. A video name that holds real and forged frames counts as two videos; a frame without a name ("") is its
    own. Voting gives z = share of frames that reach the threshold, margin = that share - 1/2, and no p. FFDError
    where it has no margin.
    """
    flags = np.asarray(labels).astype(np.int64)
    names = np.asarray(videos, dtype=str)
    keys = np.array(
        [f"{flag}|{name}" if name else f"#{i}" for i, (flag, name) in enumerate(zip(flags, names, strict=True))]
    )
    _, first, of = np.unique(keys, return_index=True, return_inverse=True)
    frames = np.bincount(of)
    values = {k: np.asarray(v, dtype=np.float64) for k, v in scores.items()}
    found = {"label": flags[first], "first": first}
    if rule.way == "vote":
        if "margin" not in values:
            raise FFDError("evaluation.video=vote needs a threshold, and the predictions have none: use mean or top.")
        votes = np.bincount(of, weights=(values["margin"] >= 0.0).astype(np.float64)) / frames
        return {**found, "z": votes, "margin": votes - MAJORITY}
    counts = np.ones(len(of)) if rule.way == "mean" else _counted(of, values["z"], frames, rule.share).astype(float)
    total = np.bincount(of, weights=counts)
    return {**found, **{k: np.bincount(of, weights=v * counts) / total for k, v in values.items()}}


def video_threshold(labels: ArrayLike, z: ArrayLike, videos: ArrayLike, rule: VideoRule = MEAN) -> float | None:
    """The threshold of a video's score, chosen on *validation* videos as that of frames is on frames.

    The highest frames of a real video lie above its mean, so a frame's threshold is no video's. None where no
    video has two frames (both are the same) and for voting, whose threshold is the majority.
    """
    names = np.asarray(videos, dtype=str)
    if rule.way == "vote" or len(np.unique(names[names != ""])) == int((names != "").sum()):
        return None
    found = video_level(labels, {"z": z}, names, rule)
    return threshold_for_accuracy(found["label"], found["z"])
