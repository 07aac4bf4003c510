"""What a command reads besides its configuration: files that options name, and a password on standard input."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import StartError


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Raises StartError, which says `cannot read` and then `what`, where a file cannot be had or is no UTF-8 text."""
    try:
        yield
    except OSError as error:
        raise StartError(f"cannot read {what}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"cannot read {what}: it is not UTF-8 text") from None


def password_on_stdin() -> str:
    """All of standard input without the end of its last line; it may be empty. Raises StartError."""
    try:
        return sys.stdin.buffer.read().decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise StartError("the password on standard input is not UTF-8 text") from None
