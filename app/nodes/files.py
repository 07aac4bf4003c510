"""What clients on a node read, as values: whole files of ours, lines in files of others, and what people must do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.nodes.site import Site

MARK: Final = "# Written by edge-registry. `edge-registry node-setup remove` takes it away; changes are overwritten."
"""The first line of every whole file; what does not begin with it is somebody else's."""


class Foreign(Exception):
    """A file of somebody else that must not, or cannot, be changed; the message says what stands against it."""


@dataclass(frozen=True, slots=True)
class File:
    """A whole file of ours at an absolute path of the node; `text` begins with MARK."""

    path: str
    text: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Edit:
    """Lines of ours, between markers, in a file that may have others.

    `insert` turns the text that is there ("" for none) into the one with exactly our present lines; it raises Foreign.
    """

    path: str
    insert: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class ByHand:
    """Something that people must add to a file of theirs, because nobody else can do it safely."""

    path: str
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """All that one client needs.

    `restart` are the commands after which it is in force, none where the client looks by itself; `notes` are sentences.
    """

    client: str
    files: tuple[File, ...] = ()
    edits: tuple[Edit, ...] = ()
    by_hand: tuple[ByHand, ...] = ()
    restart: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def owned(data: bytes) -> bool:
    """Whether the content is that of a whole file of ours."""
    return data.startswith(MARK.encode())


def authority(folder: str, site: Site) -> File:
    """The site's authority as `ca.crt` in a folder; PEM readers skip the line before the certificate."""
    return File(f"{folder}/ca.crt", f"{MARK}\n{site.ca}")
