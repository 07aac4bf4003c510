"""Listing a folder in the byte order of keys, without walking what a page does not need."""

import os
import stat
from collections.abc import Iterator
from itertools import islice

from storage.driver import Entry, Page


def version_of(found: os.stat_result) -> str:
    """What changes with every put: each one brings a new file, dated to the nanosecond."""
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"


def list_page(root: str, prefix: str, after: str, limit: int) -> Page:
    """Up to `limit` keys below `root` that begin with `prefix` and sort after `after`. Raises OSError."""
    folder = prefix[: prefix.rfind("/") + 1]
    entries = list(islice(_entries(root, folder, prefix, after), limit + 1))
    return Page(entries[:limit], more=len(entries) > limit)


def _entries(root: str, folder: str, prefix: str, after: str) -> Iterator[Entry]:
    for key, entry in sorted(_children(root, folder, prefix, after)):
        if entry is None:
            yield from _entries(root, key, prefix, after)
        else:
            found = _stat(entry)
            if found is not None:
                yield Entry(key, found.st_size, found.st_mtime, version_of(found))


def _children(root: str, folder: str, prefix: str, after: str) -> "Iterator[tuple[str, os.DirEntry[str] | None]]":
    """Keys, and folders as keys that end with a slash: sorted, they stand where their contents do."""
    try:
        scan = os.scandir(f"{root}/{folder}")
    except (FileNotFoundError, NotADirectoryError):
        return  # pruned since its parent was read, or never there
    with scan:
        for entry in scan:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                key = f"{folder}{entry.name}/"
                # All keys below a folder compare to `after` as the folder does, unless `after` lies inside it.
                if key.startswith(prefix) and (key > after or after.startswith(key)):
                    yield key, None
            else:
                key = f"{folder}{entry.name}"
                if key.startswith(prefix) and key > after:
                    yield key, entry


def _stat(entry: "os.DirEntry[str]") -> os.stat_result | None:
    """None when the file was deleted since, or is no plain file."""
    try:
        found = os.stat(entry.path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None
