"""The manifest's columns and how each cell is read: value in, normalised value out, ValueError with what is wrong."""

from __future__ import annotations

import datetime
import difflib
import json
import math
import re
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

REQUIRED = ("path", "label", "forgery")
OPTIONAL = (
    "dataset",
    "split",
    "video",
    "frame",
    "identity",
    "source_identity",
    "pair",
    "mask",
    "landmarks",
    "profile",
    "date",
    "compression",
    "sha256",
)
COLUMNS = REQUIRED + OPTIONAL
PATH_COLUMNS = ("path", "pair", "mask")
SPLITS = ("train", "valid", "test")
REAL = "real"
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2}([T ].+)?)?)?")
_NUMBERS = re.compile(r"[0-9eE+\-.,\[\]\s]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _is_missing(value: object) -> bool:
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    return isinstance(value, float) and math.isnan(value)


def cell_text(value: object) -> str:
    """A cell as trimmed text: "" for nothing (None, NaN, NA), dates in ISO form."""
    if _is_missing(value):
        return ""
    if isinstance(value, bytes):  # text columns of some Parquet writers
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, pd.Timestamp) and value == value.normalize():
        return str(value.date().isoformat())
    return value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else str(value).strip()


def _label(value: object) -> int:
    labels = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "real": 0, "forged": 1}
    text = cell_text(value).lower()
    if text not in labels:
        raise ValueError("is neither 0 / real nor 1 / forged")
    return labels[text]


def _frame(value: object) -> int | None:
    text = cell_text(value)
    if not text:
        return None
    # A whole-numbered column with gaps is written as 3.0 by many tools.
    if not re.fullmatch(r"\d+(\.0*)?", text):
        raise ValueError("is no whole frame number >= 0")
    return int(text.split(".")[0])


def _landmarks(value: object) -> str:
    if isinstance(value, (list, tuple, np.ndarray)):
        value = json.dumps([[float(number) for number in point] for point in value])
    text = cell_text(value)
    if not text:
        return ""
    message = "is no JSON list of at least three [x, y] pairs of numbers"
    # Only numbers and brackets: NumPy would also take "1", true and null for numbers.
    if not _NUMBERS.fullmatch(text):
        raise ValueError(message)
    try:
        points = np.array(json.loads(text), dtype=np.float64)
    except ValueError as error:
        raise ValueError(message) from error
    if points.ndim != 2 or len(points) < 3 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(message)
    return text


def _split(value: object) -> str:
    text = cell_text(value)
    if text and text not in SPLITS:
        nearest = difflib.get_close_matches(text.lower(), SPLITS, 1, 0.5)
        raise ValueError("is not train, valid, test or empty" + (f" (did you mean {nearest[0]!r}?)" if nearest else ""))
    return text


def _date(value: object) -> str:
    text = cell_text(value)
    if not text:
        return text
    if not _DATE.fullmatch(text):
        raise ValueError("is no ISO date (YYYY, YYYY-MM or YYYY-MM-DD)")
    try:
        datetime.date.fromisoformat((text[:10] + "-01-01")[:10])
    except ValueError as error:
        raise ValueError("is no day of the calendar") from error
    return text


def _sha256(value: object) -> str:
    text = cell_text(value).lower()
    if text and not _SHA256.fullmatch(text):
        raise ValueError("is no SHA-256 in 64 hexadecimal digits")
    return text


def _verbatim(value: object) -> str:
    # File names may begin or end with a blank, so paths are not trimmed.
    text = value if isinstance(value, str) else cell_text(value)
    if "\0" in text:
        raise ValueError("holds a null character, which no file name can")
    return text


def _path(value: object) -> str:
    text = _verbatim(value)
    if not text.strip():
        raise ValueError("is empty")
    return text


def cell_parsers() -> Mapping[str, Callable[[object], object]]:
    """For each column the function that normalises a cell, or raises ValueError with the end of a sentence."""
    parsers: dict[str, Callable[[object], object]] = dict.fromkeys(COLUMNS, cell_text)
    parsers.update(path=_path, pair=_verbatim, mask=_verbatim, label=_label, frame=_frame)
    parsers.update(landmarks=_landmarks, split=_split, date=_date, sha256=_sha256)
    return parsers
