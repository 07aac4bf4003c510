"""Which strings are keys: checked once, before a key reaches a path or a request line."""

import re
from typing import Final

LONGEST: Final = 1024
"""The most characters a key has."""

_SEGMENT: Final = r"(?!\.)[!-.0-~]{1,255}"
_KEY: Final = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_PREFIX: Final = re.compile(rf"(?:{_SEGMENT}/)*[!-.0-~]{{0,255}}")
_SCRATCH: Final = re.compile(rf"(?:{_SEGMENT}/)+")


def check_key(key: str) -> str:
    """Returns `key`; raises ValueError where it is none, as storage/driver.py defines keys."""
    return _check(_KEY, key, "a key")


def check_prefix(prefix: str) -> str:
    """Returns `prefix`, the beginning of a key, which may be empty or end within a segment; raises ValueError."""
    return _check(_PREFIX, prefix, "a prefix of keys")


def check_scratch(scratch: str) -> str:
    """Returns `scratch`, whole segments with a `/` after each; raises ValueError."""
    return _check(_SCRATCH, scratch, "a prefix that ends with a slash")


def _check(pattern: re.Pattern[str], text: str, what: str) -> str:
    if len(text) > LONGEST or not pattern.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not {what}")
    return text
