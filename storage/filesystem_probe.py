"""What a folder was seen to do, in words for the operator."""

import os
import uuid
from collections.abc import Callable
from typing import Final

from storage.driver import Absent, Capabilities, Fence, Finding
from storage.errors import ConditionFailed, FenceExpired, StorageError, Unavailable
from storage.filesystem_folder import Folder, OpenFile, locked, os_errors

LITTLE: Final = 1 << 30
"""Free bytes below which the probe complains."""


def probe(folder: Folder) -> Capabilities:
    """Tries everything with one throw-away key; never raises because the store fails."""
    key = f"upkeep/probe/{uuid.uuid4().hex}"
    writable = _try("writes", lambda: _writes(folder, key), "written, synced and read back", "pushes will fail")
    listed = _try("listing", lambda: _listing(folder, key), "lists what was just written", "listings may lag")
    lock = _try(
        "lock", lambda: _lock(folder), "flock keeps processes apart", "conditional writes and collection are off"
    )
    conditional = _try(
        "conditional create", lambda: _conditional(folder, key), "a second create is refused", "immutable tags are off"
    )
    fences = _try("fences", lambda: _fences(folder, key), "late writes are refused", "garbage collection is off")
    removed = _try("deletes", lambda: folder.delete([key]), "removed again", "deletes will fail")
    findings = (writable, listed, lock, conditional, fences, removed, _space(folder))
    return Capabilities(
        conditional_put=lock.ok and conditional.ok,
        fences=lock.ok and fences.ok,
        list_after_write=listed.ok,
        findings=findings,
    )


def _try(name: str, attempt: Callable[[], None], good: str, otherwise: str) -> Finding:
    try:
        attempt()
    except StorageError as exc:
        return Finding(name, False, f"{name}: {exc}; {otherwise}")
    return Finding(name, True, f"{name}: {good}")


def _writes(folder: Folder, key: str) -> None:
    folder.put(key, b"probe", None, None)
    if folder.get(key).data != b"probe":
        raise Unavailable("other bytes came back than were written")


def _listing(folder: Folder, key: str) -> None:
    if not folder.list(key, "", 1).entries:
        raise Unavailable("a listing does not see what was just written")


def _lock(folder: Folder) -> None:
    with os_errors("locking"):
        path = f"{folder.root}/.lock"
        with locked(OpenFile(path, os.O_RDWR)):
            try:
                with locked(OpenFile(path, os.O_RDWR), wait=0):
                    pass
            except Unavailable:
                return
    raise Unavailable("two holders got one lock")


def _conditional(folder: Folder, key: str) -> None:
    try:
        folder.put(key, b"again", Absent(), None)
    except ConditionFailed:
        return
    raise Unavailable("a second create was not refused")


def _fences(folder: Folder, key: str) -> None:
    try:
        folder.put(key, b"late", None, Fence(0, 1))
    except FenceExpired:
        return
    raise Unavailable("a write after its deadline was not refused")


def _space(folder: Folder) -> Finding:
    try:
        with os_errors("free space"):
            found = os.statvfs(folder.root)
    except StorageError as exc:
        return Finding("space", False, str(exc))
    free, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    line = f"space: {free / 2**30:.1f} GiB free of {whole / 2**30:.1f} GiB"
    return Finding("space", free >= LITTLE, line)
