"""What is the user's to mend: an error or a remark, shown as a message, never as a traceback."""

from __future__ import annotations

import errno
import re


class FFDError(Exception):
    """Something in the input is wrong: the message says what, where, and what to do. Exit code 2."""


def is_full(error: BaseException) -> bool:
    """Whether a write failed because there is no room: disk, quota, or the largest size of a file.

    NumPy and safetensors give no error number, only words.
    """
    known = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return known or re.search(r"No space left|File too large|\d+ requested and \d+ written", str(error)) is not None


class DataWarning(UserWarning):
    """Something in the data may make figures look better than they are; the work goes on."""
