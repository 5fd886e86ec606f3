"""The one error that is the user's to mend: shown as a message, never as a traceback."""

from __future__ import annotations


class FFDError(Exception):
    """Something in the input is wrong: the message says what, where, and what to do. Exit code 2."""
