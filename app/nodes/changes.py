"""The changes that bring a node from what is there to what shall be there, and what stands against some of them."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from app.nodes import blocks, containerd, k3s
from app.nodes.files import ClientFiles, Edit, File, Foreign, owned
from app.nodes.record import Record
from app.nodes.root import Root


@dataclass(frozen=True, slots=True)
class Change:
    """One file: what is there (None: nothing) and what shall be (None: nothing); `edit` for files that have others."""

    path: str
    before: bytes | None
    after: bytes | None
    edit: bool = False
    mode: int | None = None

    def diff(self) -> str:
        """The change as a unified diff."""
        old, new = (
            (part or b"").decode(errors="replace").splitlines(keepends=True) for part in (self.before, self.after)
        )
        names = ["/dev/null" if part is None else self.path for part in (self.before, self.after)]
        lines = difflib.unified_diff(old, new, names[0], names[1])
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


@dataclass(slots=True)
class Changes:
    """What to do, in this order; `refused` maps a path to the reason; `keep` is what the record holds in the end.

    `generated`: k3s has made folders of its `registries.yaml`, and makes them anew only when it starts.
    """

    changes: list[Change] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    keep: Record = field(default_factory=Record)
    generated: bool = False


def plan(root: Root, record: Record, wanted: Iterable[ClientFiles]) -> Changes:
    """The changes from the node as it is to the node with exactly these files of ours. Raises OSError."""
    clients = list(wanted)
    files = list({file.path: file for client in clients for file in client.files}.values())
    edits = list({edit.path: edit for client in clients for edit in client.edits}.values())
    result = Changes()
    for _, group in groupby(files, key=lambda file: file.path.rpartition("/")[0]):
        _plan_folder(root, record, list(group), result)
    for edit in edits:
        _plan_edit(root, record, edit, result)
    present = {file.path for file in files}
    result.changes += _removals(root, [path for path in reversed(record.files) if path not in present])
    for path in record.edits:
        if path not in {edit.path for edit in edits}:
            _plan_strip(root, record, path, result)
    return result


def _plan_folder(root: Root, record: Record, files: Sequence[File], result: Changes) -> None:
    """The files of one folder belong together: somebody else's among them leaves the folder to them."""
    changes = []
    for file in files:
        before, refusal = _there(root, file.path)
        refusal = refusal or _shadowed(root, file.path)
        if before is not None and k3s.generated(before) and file.path.startswith(k3s.CERTS):
            result.generated = True
            return
        if before is not None and not owned(before):
            refusal = "it was not written by edge-registry"
        if refusal:
            result.refused[file.path] = refusal
            mine = tuple(one.path for one in files if one.path in record.files)
            result.keep = result.keep.joined(Record(files=mine))
            return
        data = file.text.encode()
        if before != data or root.mode(file.path) != file.mode:
            changes.append(Change(file.path, before, data, mode=file.mode))
    result.changes += changes
    result.keep = result.keep.joined(Record(files=tuple(file.path for file in files)))


def _plan_edit(root: Root, record: Record, edit: Edit, result: Changes) -> None:
    before, refusal = _there(root, edit.path)
    kept = Record(edits=(edit.path,), created=(edit.path,) if before is None or edit.path in record.created else ())
    try:
        after = _encoded(edit.insert(_decoded(before)))
    except Foreign as error:
        refusal = refusal or str(error)
    if refusal:
        result.refused[edit.path] = refusal
        result.keep = result.keep.joined(kept if edit.path in record.edits else Record())
        return
    if not blocks.inner(_decoded(after)):
        _plan_strip(root, record, edit.path, result)
        return
    if after != before:
        result.changes.append(Change(edit.path, before, after, edit=True))
    result.keep = result.keep.joined(kept)


def _plan_strip(root: Root, record: Record, path: str, result: Changes) -> None:
    """Takes our lines out; the file goes as well where we made it and nothing else came into it."""
    before, refusal = _there(root, path)
    if before is None and not refusal:
        return
    try:
        after: bytes | None = _encoded(blocks.strip(_decoded(before)))
    except Foreign as error:
        refusal = refusal or str(error)
    if refusal:
        result.refused[path] = refusal
        result.keep = result.keep.joined(Record(edits=(path,), created=(path,) if path in record.created else ()))
        return
    if not after and path in record.created:
        after = None
    if after != before:
        result.changes.append(Change(path, before, after, edit=True))


def _removals(root: Root, paths: Iterable[str]) -> Iterator[Change]:
    """What the record names and nobody wants any more; what somebody else put in its place is left to them."""
    for path in paths:
        before, refusal = _there(root, path)
        if before is not None and not refusal and owned(before):
            yield Change(path, before, None)


def _there(root: Root, path: str) -> tuple[bytes | None, str | None]:
    """The content of a file, and why it is not to be touched."""
    try:
        return root.read(path), None
    except Foreign as error:
        return None, str(error)
    except OSError as error:
        return None, f"it cannot be read: {error.strerror}"


def _shadowed(root: Root, path: str) -> str | None:
    folder = containerd.other_spelling(path.rpartition("/")[0])
    if path.endswith("/hosts.toml") and folder and root.exists(f"{folder}/hosts.toml"):
        return f"containerd reads {folder} in its place, which was not written by edge-registry"
    return None


def _decoded(data: bytes | None) -> str:
    return (data or b"").decode(errors="surrogateescape")  # every byte of others comes back as it was


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
