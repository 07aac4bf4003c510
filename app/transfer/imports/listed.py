"""Images as an archive lists them, in whatever form it has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from app.oci.descriptors import Descriptor
from app.oci.digests import Digest
from app.transfer.imports.stash import Kept

_SHOWN: Final = 400
"""Letters of a name that are shown: a repository's have 255, and a tag's 128."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One image, once for each of its names. `called` is the name as the archive has it, `tag` what it says where that
    is a tag alone; both are empty where it says nothing. `place` is the image's place in the list."""

    called: str
    tag: str
    place: int

    def __str__(self) -> str:
        """For people, and their terminals."""
        said = "".join(letter if letter.isprintable() else "?" for letter in (self.called or self.tag)[:_SHOWN])
        return said or f"image {self.place + 1} of the archive"


class Contents(Protocol):
    """The images of an archive, and what they consist of."""

    async def images(self) -> Sequence[Listed]:
        """Every image that it lists. Raises ArchiveRefused."""
        ...

    async def top(self, listed: Listed) -> Descriptor:
        """The manifest, or the index, of one image. Raises ArchiveRefused, Unavailable."""
        ...

    async def manifest(self, digest: Digest) -> bytes | None:
        """The bytes of a manifest, which have this digest; None where they are not in it. Raises ArchiveRefused."""
        ...

    async def has(self, digest: Digest) -> int | None:
        """Bytes of a blob; None where it is not in it."""
        ...

    async def keep(self, digest: Digest) -> Kept:
        """A blob that is in it, in the stash. Raises ArchiveRefused, Unavailable."""
        ...
