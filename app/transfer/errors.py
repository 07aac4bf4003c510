"""What is wrong with an archive: said in one line, without anything of it being kept."""

from app.oci.errors import RegistryError

_SHOWN = 120


class ArchiveRefused(RegistryError):
    """The archive, or one image of it, is damaged, incomplete or hostile; the message is one line for people."""

    code, status, text = "ARCHIVE_INVALID", 400, "the archive cannot be used"


class CutShort(ArchiveRefused):
    """The archive ends before it says that it does: maybe the rest is still being written."""


def shown(text: str) -> str:
    """Text from an archive as it may stand in a message: short, and printable."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in text)
    return clean if len(clean) <= _SHOWN else f"{clean[:_SHOWN]}..."
