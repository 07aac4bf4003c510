"""Quantities as people write them in configuration: `5m`, `10GiB`."""

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {
    "": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12,
    "ki": 1 << 10, "kib": 1 << 10, "mi": 1 << 20, "mib": 1 << 20, "gi": 1 << 30, "gib": 1 << 30, "ti": 1 << 40,
    "tib": 1 << 40,
}  # fmt: skip
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def seconds(value: Any) -> Any:
    """Seconds of `90`, `90s`, `1h30m`; ValueError for other text, other types unchanged."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(f"({_PART.pattern})+", text):
        raise ValueError("must be a duration such as 90s, 5m or 12h")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def size(value: Any) -> Any:
    """Bytes of `1048576`, `20GB`, `10GiB`; ValueError for other text, other types unchanged."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip().lower())
    if found is None or found[2] not in _BYTES:
        raise ValueError("must be a size such as 500MB or 20GiB")
    return int(float(found[1]) * _BYTES[found[2]])


def size_text(size: int) -> str:
    """Bytes as people compare them with what their uplink carries: `3.6 MB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.{0 if size >= 100 * factor else 1}f} {unit}"
    return f"{size} B"


Duration = Annotated[float, BeforeValidator(seconds)]
"""Seconds; text such as `5m` is read as well."""
Size = Annotated[int, BeforeValidator(size)]
"""Bytes; text such as `20GiB` is read as well."""
