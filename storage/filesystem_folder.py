"""One folder that holds a store: what is done to it, in blocking calls that are made from threads."""

import errno
import fcntl
import os
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from storage.driver import Absent, Condition, Entry, Fence, Object, Page, Version
from storage.errors import (
    AccessDenied,
    ConditionFailed,
    Corrupt,
    FenceExpired,
    NotFound,
    OutcomeUnknown,
    StorageError,
    StoreFull,
    Unavailable,
    Unsupported,
)
from storage.filesystem_listing import list_page, version_of
from storage.keys import check_key

LOCK_SECONDS: Final = 10.0
"""How long a write waits for another process's; each holds the lock for one rename."""

_STALE_SECONDS: Final = 24 * 3600.0
_SETTLED_SECONDS: Final = 60.0
_RACES: Final = 100
_COPY_BYTES: Final = 64 << 20
_KINDS: Final[dict[int | None, type[StorageError]]] = {
    errno.ENOSPC: StoreFull,
    errno.EDQUOT: StoreFull,
    errno.EACCES: AccessDenied,
    errno.EPERM: AccessDenied,
}


@contextmanager
def os_errors(doing: str) -> Iterator[None]:
    """Turns an OSError into StoreFull, AccessDenied or Unavailable, whose message begins with `doing`."""
    try:
        yield
    except OSError as exc:
        raise _KINDS.get(exc.errno, Unavailable)(f"{doing}: {exc.strerror}") from exc


class OpenFile:
    """A descriptor that is closed with its last reference: a cancelled task neither leaks it nor pulls it from under a
    thread that is still reading."""

    def __init__(self, path: str, flags: int) -> None:
        self.fd = -1
        self.fd = os.open(path, flags | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Closes it now; only for those who know that no thread uses it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


@contextmanager
def locked(file: OpenFile, *, alone: bool = True, wait: float = LOCK_SECONDS) -> Iterator[None]:
    """Holds the flock of `file`, alone or shared. Raises Unavailable after `wait` seconds."""
    deadline, pause = time.monotonic() + wait, 0.0005
    while True:
        try:
            fcntl.flock(file.fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            break
        except BlockingIOError as exc:
            if time.monotonic() > deadline:
                raise Unavailable("another process has held a lock of the store's folder for too long") from exc
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    try:
        yield
    finally:
        fcntl.flock(file.fd, fcntl.LOCK_UN)


def write_all(fd: int, data: bytes | bytearray, at: int = 0) -> None:
    """Writes all of `data` at offset `at`. Raises OSError."""
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += os.pwrite(fd, view[done:], at + done)


def seal(fd: int) -> None:
    """Dates the file to the nanosecond, so that no two versions look alike, and makes it durable. Raises OSError."""
    os.utime(fd, ns=(now := time.time_ns(), now))
    os.fsync(fd)


class Folder:
    """The files below `root`: one a key, with unfinished ones in `.tmp` and the lock of all processes in `.lock`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._lock = f"{root}/.lock"
        self._unfinished = f"{root}/.tmp"

    def prepare(self) -> None:
        """Makes the folder where it is missing, and drops what writers left in `.tmp` a day ago or earlier."""
        with os_errors(f"the store's folder {self.root} cannot be used"):
            missing = _missing(self.root)
            os.makedirs(self.root, 0o700, exist_ok=True)
            for folder in missing:
                _sync_folder(os.path.dirname(folder))
            os.makedirs(self._unfinished, 0o700, exist_ok=True)
            OpenFile(self._lock, os.O_RDWR | os.O_CREAT)
            for entry in os.scandir(self._unfinished):
                with absence_is_fine():
                    if time.time() - entry.stat().st_mtime > _STALE_SECONDS:
                        os.unlink(entry.path)

    def check(self) -> None:
        """Raises Unavailable or AccessDenied when the folder is not the one that was prepared: unmounted, say."""
        with os_errors("the store's folder does not answer"):
            os.stat(self._lock)

    def path(self, key: str) -> str:
        """Where the key's file is. Raises ValueError."""
        return f"{self.root}/{check_key(key)}"

    def open(self, key: str) -> tuple[OpenFile, os.stat_result]:
        """The key's file, for reading. Raises NotFound."""
        with os_errors(f"reading {key}"):
            try:
                file = OpenFile(self.path(key), os.O_RDONLY | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError) as exc:
                self.check()
                raise NotFound(key) from exc
            return file, _regular(os.fstat(file.fd), key)

    def get(self, key: str) -> Object:
        """The whole object. Raises NotFound, Corrupt."""
        file, found = self.open(key)
        with os_errors(f"reading {key}"):
            pieces = []
            left = found.st_size
            while left and (piece := os.read(file.fd, left)):
                pieces.append(piece)
                left -= len(piece)
        if left:
            raise Corrupt(f"{key} ends {left} bytes early")
        return Object(b"".join(pieces), found.st_mtime, version_of(found))

    def stat(self, key: str) -> Entry:
        """Size and version of one key. Raises NotFound."""
        with os_errors(f"reading {key}"):
            try:
                found = _regular(os.stat(self.path(key)), key)
            except (FileNotFoundError, NotADirectoryError) as exc:
                self.check()
                raise NotFound(key) from exc
        return Entry(key, found.st_size, found.st_mtime, version_of(found))

    def list(self, prefix: str, after: str, limit: int) -> Page:
        """One page of keys. Raises AccessDenied, Unavailable."""
        with os_errors(f"listing {prefix}"):
            page = list_page(self.root, prefix, after, limit)
        if not page.more:  # folders of a disk that went look like folders that were pruned
            self.check()
        return page

    def put(self, key: str, data: bytes | bytearray, condition: Condition | None, fence: Fence | None) -> None:
        """Writes one object whole and durably. Raises ConditionFailed, FenceExpired, StoreFull, OutcomeUnknown."""
        target = self.path(key)
        with self.temporary(key) as (path, file):
            write_all(file.fd, data)
            seal(file.fd)
            self.place(path, target, condition, fence)

    def copy(self, source: str, target: str) -> None:
        """Copies an object. Raises NotFound, Corrupt, StoreFull."""
        path = self.path(target)
        original, found = self.open(source)
        with self.temporary(target) as (unfinished, file):
            copy_bytes(original.fd, file.fd, found.st_size)
            if os.fstat(file.fd).st_size != found.st_size:
                raise Corrupt(f"{source} ends early")
            seal(file.fd)
            self.place(unfinished, path)

    def delete(self, keys: Sequence[str], fence: Fence | None = None) -> None:
        """Removes keys durably; absent ones are no error. Raises FenceExpired, OutcomeUnknown."""
        paths = [self.path(key) for key in keys]
        with os_errors(f"deleting {keys[0]}"), self._changing(alone=fence is not None):
            _refuse_expired(fence)
            for path in paths:
                self._unlink(path)
        self.settle({self.prune(os.path.dirname(path)) for path in paths})

    def place(self, path: str, target: str, condition: Condition | None = None, fence: Fence | None = None) -> None:
        """Renames a durable file to its key's path, where condition and fence allow it, and makes the name durable."""
        for _ in range(_RACES):
            self.make(os.path.dirname(target))
            # Plain changes share the lock: they need not wait for each other, but none may fall between another's look
            # and its rename.
            with self._changing(alone=condition is not None or fence is not None):
                _refuse_expired(fence)
                _refuse_unmet(target, condition)
                try:
                    os.rename(path, target)
                    break
                except FileNotFoundError:
                    continue  # a delete pruned the folder
                except IsADirectoryError as exc:
                    raise Unsupported("a key cannot be a folder of another key") from exc
        else:
            raise Unavailable("the folder of a key was pruned again and again while it was written")
        self.settle({os.path.dirname(target)})

    def make(self, folder: str) -> None:
        """Makes a folder that others may be pruning. Raises OSError, Unsupported."""
        for _ in range(_RACES):
            try:
                os.makedirs(folder, exist_ok=True)
                return
            except FileNotFoundError:
                continue
            except (FileExistsError, NotADirectoryError) as exc:
                if isinstance(exc, NotADirectoryError) or os.path.isfile(folder):
                    raise Unsupported("a key cannot lie inside another key") from exc
        raise Unavailable("the folder of a key was pruned again and again while it was made")

    def prune(self, folder: str) -> str:
        """Removes a folder and its parents as far as they are empty; returns the first that stays."""
        while folder != self.root:
            try:
                os.rmdir(folder)
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError:
                break
            folder = os.path.dirname(folder)
        return folder

    def settle(self, folders: set[str]) -> None:
        """Makes the names in these folders durable, and the folders' own. Raises OutcomeUnknown."""
        try:
            for folder in folders:
                self._sync(folder)
        except OSError as exc:
            raise OutcomeUnknown(f"a change was made but may not last: {exc.strerror}") from exc

    def _sync(self, folder: str) -> None:
        first = True
        while True:
            try:
                # Somebody else may have made a folder above a moment ago and not synced it yet.
                if first or abs(time.time() - os.stat(folder).st_mtime) < _SETTLED_SECONDS:
                    _sync_folder(folder)
                first = False
            except (FileNotFoundError, NotADirectoryError):
                pass  # pruned: what matters now is its absence, in its parent
            if folder == self.root:
                return
            folder = os.path.dirname(folder)

    def _unlink(self, path: str) -> None:
        with absence_is_fine():
            os.unlink(path)

    @contextmanager
    def _changing(self, *, alone: bool) -> Iterator[None]:
        # The lock is opened, never made here: an unmounted disk must not be mistaken for an empty store.
        with locked(OpenFile(self._lock, os.O_RDWR), alone=alone):
            yield

    @contextmanager
    def temporary(self, key: str) -> Iterator[tuple[str, OpenFile]]:
        """A new file in `.tmp` and its path; what is still there at the end goes. Raises StoreFull, Unavailable."""
        path = f"{self._unfinished}/{uuid.uuid4().hex}"
        with os_errors(f"writing {key}"):
            file = OpenFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            try:
                yield path, file
            finally:
                # A traceback would keep the file open, and with it the room of a disk that is full.
                file.close()
                self._unlink(path)


def _sync_folder(folder: str) -> None:
    file = OpenFile(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(file.fd)


def _missing(folder: str) -> list[str]:
    missing = []
    while not os.path.exists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


@contextmanager
def absence_is_fine() -> Iterator[None]:
    """Ends the block quietly when the file it works on is not there."""
    with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        yield


def _regular(found: os.stat_result, key: str) -> os.stat_result:
    if not stat.S_ISREG(found.st_mode):
        raise NotFound(key)
    return found


def _refuse_expired(fence: Fence | None) -> None:
    # Before `signed_at` the clock has gone back, and the deadline is worth nothing.
    if fence is not None and not fence.signed_at <= time.time() < fence.signed_at + fence.lifetime:
        raise FenceExpired("the deadline of this write has passed")


def _refuse_unmet(target: str, condition: Condition | None) -> None:
    if condition is None:
        return
    try:
        found = os.stat(target)
    except FileNotFoundError:
        if isinstance(condition, Version):
            raise ConditionFailed("the key is not there") from None
        return
    if stat.S_ISDIR(found.st_mode):
        raise Unsupported("a key cannot be a folder of another key")
    if isinstance(condition, Absent):
        raise ConditionFailed("the key is there already")
    if version_of(found) != condition.version:
        raise ConditionFailed("the key is not the version that was named")


def copy_bytes(source: int, target: int, size: int) -> None:
    """Copies the first `size` bytes, or what there is of them, inside the kernel where it can. Raises OSError."""
    done = 0
    try:
        while done < size and (count := os.copy_file_range(source, target, min(size - done, _COPY_BYTES), done, done)):
            done += count
    except OSError as exc:
        if exc.errno not in {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}:
            raise
    while done < size and (piece := os.pread(source, min(size - done, 1 << 20), done)):
        write_all(target, piece, done)
        done += len(piece)
