"""Things that are named on the command line and in files of them."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from app.cli.reading import readable
from app.errors import StartError
from app.oci.errors import RegistryError

T = TypeVar("T")

_ALL: Final = "all"
_PLATFORM: Final = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?")
_LONGEST: Final = 200
"""Characters of a thing that an error repeats."""


def named(given: Sequence[str] | None, files: Sequence[str] | None) -> list[str]:
    """What is named, each once, in order. A file has one a line, `#` begins a comment, `-` is standard input.

    Raises StartError.
    """
    return list(dict.fromkeys([*(given or []), *(text for file in files or [] for text in _listed(file))]))


def parsed(texts: Sequence[str], parse: Callable[[str], T]) -> list[T]:
    """What each text means to `parse`. Refuses all where one is wrong, with a line for each that is. Raises StartError."""
    found, problems = [], []
    for text in texts:
        try:
            found.append(parse(text))
        except RegistryError as error:
            problems.append(f"{text[:_LONGEST]!r}: {error.message}")
    if problems:
        raise StartError("\n".join(problems))
    return found


def platforms(given: Sequence[str] | None, *, drop_all: bool = False) -> list[str]:
    """What --platform names, in order; one text may name several, parted by commas.

    `all` is kept as it is, unless `drop_all` says that it means the same as nothing. Raises StartError.
    """
    found = [part.strip() for text in given or [] for part in text.split(",")]
    for platform in found:
        if platform != _ALL and not _PLATFORM.fullmatch(platform):
            more = "" if drop_all else f", and not `{_ALL}`"
            raise StartError(f"{platform[:40]!r} is no platform such as linux/arm64{more}")
    return [platform for platform in found if not (drop_all and platform == _ALL)]


def _listed(file: str) -> Iterator[str]:
    with readable(f"the list {file}"):
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    for line in text.splitlines():
        found = line.partition("#")[0].strip()
        if found:
            yield found
