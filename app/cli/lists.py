"""Things that are named on the command line and in files of them."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.errors import StartError


def named(given: Sequence[str] | None, files: Sequence[str] | None) -> list[str]:
    """What is named, each once, in order. A file has one a line, `#` begins a comment, `-` is standard input.

    Raises StartError.
    """
    return list(dict.fromkeys([*(given or []), *(text for file in files or [] for text in _listed(file))]))


def _listed(file: str) -> Iterator[str]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StartError(f"cannot read the list {file}: {reason}") from None
    for line in text.splitlines():
        found = line.partition("#")[0].strip()
        if found:
            yield found
