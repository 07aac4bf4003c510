"""The file of one unfinished object, in blocking calls that are made from threads.

Its name is `<id>.<holder>`. Whoever resumes renames it, so that a writer that lives on elsewhere, a slow request that
its client gave up, can add no byte any more: each append looks, under the file's own flock, whether the name is still
there.
"""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import Corrupt, NotFound, Unavailable
from storage.filesystem_folder import Folder, OpenFile, locked, os_errors, seal, write_all
from storage.keys import check_key

_RACES = 100


class Scratch:
    """A file that grows. `size`: bytes it holds; `identity`: what a state names it by."""

    def __init__(self, folder: Folder, prefix: str, identity: str, size: int) -> None:
        self.identity, self.size = identity, size
        self._folder, self._prefix = folder, prefix
        self._path = folder.path(f"{prefix}{identity}.{uuid.uuid4().hex}")
        self._file: OpenFile | None = None

    @classmethod
    def create(cls, folder: Folder, prefix: str) -> "Scratch":
        """A new, empty file. Raises StoreFull, Unavailable."""
        scratch = cls(folder, prefix, uuid.uuid4().hex, 0)
        with os_errors(f"writing below {prefix}"):
            scratch._make()
        return scratch

    @classmethod
    def resume(cls, folder: Folder, prefix: str, identity: str, size: int) -> "Scratch":
        """Takes a file over from whoever had it, cut to `size` bytes. Raises NotFound, Corrupt, Unavailable."""
        scratch = cls(folder, prefix, check_key(identity), size)
        with os_errors(f"resuming below {prefix}"):
            scratch._take_over()
        return scratch

    def append(self, data: bytes | bytearray) -> None:
        """Adds bytes at `size`; repeating a failed append is safe. Raises StoreFull, NotFound, Unavailable."""
        with os_errors(f"writing below {self._prefix}"), self._held() as file:
            write_all(file.fd, data, self.size)
        self.size += len(data)

    def keep(self) -> None:
        """Makes the bytes and the name durable. Raises StoreFull, NotFound, Unavailable."""
        with os_errors(f"writing below {self._prefix}"), self._held() as file:
            os.fsync(file.fd)
        self._folder.settle({os.path.dirname(self._path)})

    def publish(self, key: str) -> None:
        """Moves the file to its key, durably. Raises StoreFull, NotFound, OutcomeUnknown."""
        with os_errors(f"writing {key}"), self._held() as file:
            if os.fstat(file.fd).st_size != self.size:
                raise Corrupt(f"what was written for {key} has another size")
            seal(file.fd)
            self._folder.place(self._path, self._folder.path(key))
        self._folder.prune(os.path.dirname(self._path))

    def present(self) -> bool:
        """Whether the file is still there and nobody else holds it."""
        with os_errors(f"reading below {self._prefix}"):
            return self._file is not None and _is_at(self._file, self._path)

    def remove(self) -> None:
        """Drops the file. Raises Unavailable."""
        with os_errors(f"writing below {self._prefix}"):
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                return
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

    def _take_over(self) -> None:
        for _ in range(_RACES):
            path = self._find()
            try:
                file = OpenFile(path, os.O_RDWR)
            except FileNotFoundError:
                continue  # somebody else took it over; take it from them
            with locked(file):
                if not _is_at(file, path):
                    continue
                if os.fstat(file.fd).st_size < self.size:
                    raise Corrupt(f"acknowledged bytes below {self._prefix} are missing")
                os.rename(path, self._path)
                os.ftruncate(file.fd, self.size)
                self._file = file
                return
        raise Unavailable("an upload was taken over again and again while it was resumed")

    def _find(self) -> str:
        folder = os.path.dirname(self._path)
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            names = []
        for name in names:
            if name.startswith(self.identity + "."):
                return f"{folder}/{name}"
        raise NotFound(f"what was written below {self._prefix} is gone")

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
