"""Ranges: of requests for bytes (RFC 9110, section 14) and of chunks (the specification's own form)."""

import re
from typing import Final

from app.oci.errors import BlobUploadInvalid, RangeInvalid

_BYTES: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")
_CHUNK: Final = re.compile(r"(?:bytes[ =])?(\d{1,19})-(\d{1,19})(?:/(?:\d{1,19}|\*))?")


def parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    """The half-open range of `size` bytes that is asked for; None means all of them.

    Only a single range is answered with 206; several, or what is no range at all, are ignored as the RFC allows.
    Raises RangeInvalid when the range begins after the end, its own or the blob's: the RFC would ignore the former, the
    specification's conformance suite wants it refused.
    """
    found = _BYTES.fullmatch(text.strip()) if text and len(text) < 64 else None
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    if start >= end:
        raise RangeInvalid(headers={"Content-Range": f"bytes */{size}"})
    return start, end


def parse_chunk(text: str | None) -> tuple[int, int] | None:
    """First and last byte of a chunk (`Content-Range: 0-99`), or None where there is no such header."""
    if text is None:
        return None
    found = _CHUNK.fullmatch(text.strip())
    if found is None or int(found[1]) > int(found[2]):
        raise BlobUploadInvalid("invalid Content-Range", detail={"range": text[:64]})
    return int(found[1]), int(found[2])
