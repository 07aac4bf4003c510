"""The file of one unfinished object, in blocking calls that are made from threads.

Suspended, it is named `<lineage>.<parent>.<self>`; while a writer holds it, `.open` follows. A state names a suspended
file. Whoever resumes it renames it, or renames the file of an earlier holder of the same state, who can then add no
byte any more and was promised none: each append looks, under the file's own flock, whether its name is still there. A
late one takes nothing from those who came after it: where they hold the file, or have suspended it again, it copies.
"""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from storage.errors import Corrupt, NotFound, Unavailable
from storage.filesystem_folder import Folder, OpenFile, absence_is_fine, copy_bytes, locked, os_errors, seal, write_all
from storage.keys import check_key

_RACES: Final = 20
_OPEN: Final = ".open"


def turn() -> str:
    """A name used once; of two, the later one sorts after the other."""
    return f"{time.time_ns():016x}{uuid.uuid4().hex[:16]}"


class Scratch:
    """A file that grows. `size`: bytes it holds."""

    def __init__(self, folder: Folder, prefix: str, identity: tuple[str, str, str], size: int) -> None:
        self.size = size
        self._folder, self._prefix = folder, prefix
        self._lineage, self._parent, self._self = identity
        self._name = ".".join(identity)
        self._path = folder.path(f"{prefix}{self._name}{_OPEN}")
        self._file: OpenFile | None = None

    @classmethod
    def create(cls, folder: Folder, prefix: str) -> "Scratch":
        """A new, empty file. Raises StoreFull, Unavailable."""
        scratch = cls(folder, prefix, (uuid.uuid4().hex, "0", turn()), 0)
        with os_errors(f"writing below {prefix}"):
            scratch._make()
        return scratch

    @classmethod
    def resume(cls, folder: Folder, prefix: str, name: str, size: int, holder: str) -> "Scratch":
        """The first `size` bytes of the suspended file `name`; `holder` is the writer's turn.

        Raises NotFound, Corrupt, Unavailable.
        """
        lineage, _, origin = check_key(name).split(".")
        scratch = cls(folder, prefix, (lineage, origin, holder), size)
        with os_errors(f"resuming below {prefix}"):
            for _ in range(_RACES):  # a listing may miss a file that is being renamed
                if scratch._take_over(name):
                    return scratch
            folder.check()
        raise NotFound(f"what was written below {prefix} is gone")

    def append(self, data: bytes | bytearray) -> None:
        """Adds bytes at `size`; repeating a failed append is safe. Raises StoreFull, NotFound, Unavailable."""
        with os_errors(f"writing below {self._prefix}"), self._held() as file:
            write_all(file.fd, data, self.size)
        self.size += len(data)

    def suspend(self) -> dict[str, Any]:
        """Makes the bytes and the name durable; returns the state. Raises StoreFull, NotFound, Unavailable."""
        with os_errors(f"writing below {self._prefix}"), self._held() as file:
            os.fsync(file.fd)
            suspended = self._path.removesuffix(_OPEN)
            os.rename(self._path, suspended)
            self._path = suspended
            inode = os.fstat(file.fd).st_ino
        self._folder.settle({os.path.dirname(self._path)})
        return {"file": self._name, "size": self.size, "inode": inode}

    def publish(self, key: str) -> None:
        """Moves the file to its key, durably, and drops its relatives. Raises StoreFull, NotFound, OutcomeUnknown."""
        with os_errors(f"writing {key}"):
            with self._held() as file:
                if os.fstat(file.fd).st_size != self.size:
                    raise Corrupt(f"what was written for {key} has another size")
                seal(file.fd)
                self._folder.place(self._path, self._folder.path(key))
            for name in self._names():
                if name.startswith(self._lineage + "."):
                    with absence_is_fine():
                        os.unlink(self._beside(name))
        self._folder.prune(os.path.dirname(self._path))

    def published(self, key: str) -> bool:
        """Whether the key holds this very file. Raises Unavailable."""
        with os_errors(f"reading {key}"), absence_is_fine():
            return self._file is not None and _is_at(self._file, self._folder.path(key))
        return False

    def remove(self) -> None:
        """Drops the file, and gives its room back at once. Raises Unavailable."""
        if self._file is not None:
            self._file.close()
        with os_errors(f"writing below {self._prefix}"), absence_is_fine():
            os.unlink(self._path)
        self._folder.prune(os.path.dirname(self._path))

    def _make(self) -> None:
        for _ in range(_RACES):
            self._folder.check()
            self._folder.make(os.path.dirname(self._path))
            try:
                self._file = OpenFile(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            except FileNotFoundError:
                continue  # a delete pruned the folder
            return
        raise Unavailable("the folder of an upload was pruned again and again while it was written")

    def _take_over(self, name: str) -> bool:
        names = self._names()
        children = [child for child in names if child.startswith(f"{self._lineage}.{self._parent}.")]
        earlier = (child for child in children if child.endswith(_OPEN) and child < self._name)
        held = name if name in names else next(earlier, None)
        try:
            if held is not None:
                return self._steal(self._beside(held))
            return bool(children) and self._copy(self._beside(children[0]))
        except FileNotFoundError:
            return False

    def _steal(self, path: str) -> bool:
        file = OpenFile(path, os.O_RDWR)
        with locked(file):
            if not _is_at(file, path):
                return False
            self._check_size(file)
            os.rename(path, self._path)
            os.ftruncate(file.fd, self.size)
        self._file = file
        return True

    def _copy(self, path: str) -> bool:
        source = OpenFile(path, os.O_RDONLY)
        self._check_size(source)
        with self._folder.temporary(self._prefix) as (unfinished, file):
            copy_bytes(source.fd, file.fd, self.size)
            os.rename(unfinished, self._path)
        self._file = OpenFile(self._path, os.O_RDWR)
        return True

    def _check_size(self, file: OpenFile) -> None:
        if os.fstat(file.fd).st_size < self.size:
            raise Corrupt(f"acknowledged bytes below {self._prefix} are missing")

    def _names(self) -> list[str]:
        try:
            return os.listdir(os.path.dirname(self._path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _beside(self, name: str) -> str:
        return f"{os.path.dirname(self._path)}/{name}"

    @contextmanager
    def _held(self) -> Iterator[OpenFile]:
        assert self._file is not None  # noqa: S101 - create and resume have opened it
        with locked(self._file):
            if not _is_at(self._file, self._path):
                raise NotFound(f"what was written below {self._prefix} is gone, or another request continues it")
            yield self._file


def remove_tree(folder: Folder, prefix: str) -> None:
    """Removes everything below `prefix`, which ends with a slash, durably. Raises Unavailable."""
    path = folder.path(prefix[:-1])
    with os_errors(f"discarding {prefix}"):
        folder.check()
        _remove_racing(path)
    folder.settle({folder.prune(os.path.dirname(path))})


def _remove_racing(path: str) -> None:
    """Removes a folder in which others may be adding and removing files."""
    for _ in range(_RACES):
        try:
            shutil.rmtree(path)
        except NotADirectoryError:
            return
        except FileNotFoundError:
            if not os.path.isdir(path):
                return
        except OSError as exc:
            if exc.errno != errno.ENOTEMPTY:
                raise
        else:
            return
    raise Unavailable("a folder was written to again and again while it was discarded")


def _is_at(file: OpenFile, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fd), os.stat(path))
    except FileNotFoundError:
        return False
