"""Repository names."""

import re
from typing import Final, NewType

from app.oci.errors import NameInvalid

Name = NewType("Name", str)
"""A valid repository name; only `parse_name` makes one."""

MAX_LENGTH: Final = 254
"""One below the longest file name (255 bytes), because keys hold a whole name and a terminator in one segment."""

_SHAPE: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")


def parse_name(text: str) -> Name:
    """The name, or NameInvalid. Any depth; the specification's grammar ("Pulling manifests")."""
    if len(text) > MAX_LENGTH or not _SHAPE.fullmatch(text):
        raise NameInvalid(detail={"name": text[:MAX_LENGTH]})
    return Name(text)
