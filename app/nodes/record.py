"""What `node-setup` made on a node, kept on the node itself: written before the first change, shortened after the last."""

import json
from dataclasses import dataclass
from typing import Final

from app.errors import StartError
from app.nodes.root import HOME, Root, discard, temporary

PATH: Final = f"{HOME}/node-setup.json"


@dataclass(frozen=True, slots=True)
class Record:
    """Paths on the node: whole files, files of others with lines of ours, those of them that we made, and folders."""

    files: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    created: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.edits or self.folders)

    def joined(self, other: "Record") -> "Record":
        """Everything that stands in one of them."""
        return Record(
            tuple(dict.fromkeys(self.files + other.files)),
            tuple(dict.fromkeys(self.edits + other.edits)),
            tuple(dict.fromkeys(self.created + other.created)),
            tuple(dict.fromkeys(self.folders + other.folders)),
        )


def load(root: Root) -> Record:
    """The record of a node, empty where there is none. Raises StartError for one that cannot be read."""
    data = root.read(PATH)
    if data is None:
        return Record()
    try:
        found = json.loads(data)
        return Record(**{key: tuple(str(one) for one in found[key]) for key in Record.__dataclass_fields__})
    except (ValueError, KeyError, TypeError):
        raise StartError(f"the record {PATH} of the node is damaged: move it away to begin anew") from None


def save(root: Root, record: Record) -> None:
    """Writes the record where it differs; an empty one goes, with its folder where nothing else is in it."""
    if not record:
        discard(temporary(root.real(PATH)))  # a run that was killed may have left it
        if root.exists(PATH):
            root.remove(PATH)
        return
    data = json.dumps({key: list(getattr(record, key)) for key in Record.__dataclass_fields__}, indent=1).encode()
    if root.read(PATH) != data:
        root.make_folders(PATH)
        root.write(PATH, data, 0o600)
