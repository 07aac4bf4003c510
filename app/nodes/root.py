"""The file system of a node below a folder: no path, and no link in it, leads out; what is written is whole or not there."""

import base64
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Final

from app.nodes.files import Foreign

HOME: Final = "/var/lib/edge-registry"
JOURNAL: Final = f"{HOME}/node-setup.journal"

_LINKS: Final = 40
_NO_RENAME: Final = frozenset({errno.EBUSY, errno.EROFS, errno.EACCES, errno.EPERM, errno.EXDEV})
"""What a rename, or a new file beside it, meets where a file was mounted alone: it can only be written in place."""


class Root:
    """The node's `/`, seen at `folder`; paths are those that the node itself uses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def real(self, path: str) -> Path:
        """Where a path of the node is, links followed as on the node. Raises Foreign for links without an end."""
        place, parts, links = self.folder, list(PurePosixPath(path).parts[1:]), 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                place = place if place == self.folder else place.parent
                continue
            place = place / part
            if place.is_symlink():
                links += 1
                if links > _LINKS:
                    raise Foreign("its links lead in a circle")
                target = PurePosixPath(os.readlink(place))
                place = self.folder if target.is_absolute() else place.parent
                parts = [*(target.parts[1:] if target.is_absolute() else target.parts), *parts]
        return place

    def read(self, path: str) -> bytes | None:
        """The content of a file, None where there is none. Raises Foreign for what is no file, OSError."""
        real = self.real(path)
        try:
            if real.exists() and not real.is_file():
                raise Foreign("it is no file")
            return real.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def exists(self, path: str) -> bool:
        """Whether there is anything at a path."""
        return self.real(path).exists()

    def mode(self, path: str) -> int:
        """The permissions of a file. Raises OSError."""
        return self.real(path).stat().st_mode & 0o777

    def missing_folders(self, path: str) -> list[str]:
        """The folders above a path that are not there, the outermost first."""
        above = [str(one) for one in PurePosixPath(path).parents if str(one) != "/"]
        return [folder for folder in reversed(above) if not self.exists(folder)]

    def make_folders(self, path: str) -> None:
        """Makes the folders above a path, for everybody to look into. Raises OSError."""
        for folder in self.missing_folders(path):
            real = self.real(folder)
            real.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # another run that ends takes the folder of the record away
                real.chmod(0o755)
            sync(real.parent)

    def write(
        self, path: str, data: bytes, mode: int | None = None, *, unless: Callable[[], bool] | None = None
    ) -> bool:
        """Puts a new content into a file at once, through another one beside it. Raises OSError.

        `mode` None: the permissions of the file that was there, 0644 for none; its owner stays as well. `unless` is
        asked last of all; True leaves the file as it is, and is answered with False.
        """
        real = self.real(path)
        beside = temporary(real)
        old = real.stat() if real.exists() else None
        rights = mode if mode is not None else (old.st_mode & 0o777 if old else 0o644)
        beside.unlink(missing_ok=True)
        try:
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
                if old is not None and os.geteuid() == 0:
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), rights)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if unless is not None and unless():
                beside.unlink()
                return False
            os.replace(beside, real)
        except OSError:
            discard(beside)
            raise
        sync(real.parent)
        return True

    def remove(self, path: str) -> None:
        """Removes a file, if it is there. Raises OSError."""
        real = self.real(path)
        real.unlink(missing_ok=True)
        sync(real.parent)

    def remove_folder(self, path: str) -> None:
        """Removes a folder, if it is there and nothing is in it and nothing is mounted on it."""
        try:
            self.real(path).rmdir()
        except OSError:
            return

    def rewrite(self, path: str, old: bytes | None, new: bytes) -> bool:
        """Turns `old` (None: no file) into `new`; False, with nothing done, where somebody else wrote meanwhile.

        By rename where that works. A file that is mounted alone keeps its inode: the part that differs is written at
        once, after both contents went to a journal, from which `recover` finishes a run that was killed. Raises OSError,
        and Foreign where the mounted file is no longer the one on the node.
        """
        try:
            return self.write(path, new, unless=lambda: self.read(path) != old)
        except OSError as error:
            if error.errno not in _NO_RENAME or old is None:
                raise
        return self._write_in_place(path, old, new)

    def _write_in_place(self, path: str, old: bytes, new: bytes) -> bool:
        self.make_folders(JOURNAL)
        self.write(JOURNAL, journal_entry(path, old, new), 0o600)
        try:
            return overwrite(self.real(path), old, new)
        finally:
            self.remove(JOURNAL)

    def recover(self) -> None:
        """Finishes what a killed `rewrite` began; what others wrote behind it stays. Raises OSError."""
        data = self.read(JOURNAL)
        if data is None:
            return
        entry = json.loads(data)
        old, new = (base64.b64decode(entry[key]) for key in ("old", "new"))
        now = self.read(entry["path"])
        if now is not None and now != old and now[: max(len(old), len(new))] != new:
            reached = _common(now, new)
            added = now[max(len(old), reached) :]
            if now[reached : len(old)] == old[reached:] and reached >= _common(old, new):
                overwrite(self.real(entry["path"]), now, new + added)
        self.remove(JOURNAL)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One run at a time on a node; makes the folder of the record, and waits. Raises OSError."""
        handle = self._locked()
        try:
            yield
        finally:
            os.close(handle)

    def _locked(self) -> int:
        """The folder of the record, open and locked; not one that another run removed while this one waited for it."""
        while True:
            self.make_folders(f"{HOME}/x")
            with suppress(FileNotFoundError):
                handle = os.open(self.real(HOME), os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(handle, fcntl.LOCK_EX)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), self.real(HOME).stat()):
                        return handle
                os.close(handle)


def journal_entry(path: str, old: bytes, new: bytes) -> bytes:
    """What the journal holds while a file goes from one content to another."""
    entry = {"path": path, "old": base64.b64encode(old).decode(), "new": base64.b64encode(new).decode()}
    return json.dumps(entry).encode()


def overwrite(real: Path, old: bytes, new: bytes) -> bool:
    """Writes `new` over `old` in place with one write; False where the file holds something else. Raises OSError, Foreign."""
    handle = os.open(real, os.O_RDWR | os.O_NOFOLLOW)
    try:
        state = os.fstat(handle)
        if state.st_nlink == 0:
            raise Foreign("another file took its place on the node: start this pod anew to see it")
        if os.pread(handle, len(old) + 1, 0) != old:
            return False
        start = _common(old, new)
        if new[start:]:
            os.pwrite(handle, new[start:], start)
        if len(new) < len(old):
            os.ftruncate(handle, len(new))
        os.fsync(handle)
    finally:
        os.close(handle)
    return True


def temporary(real: Path) -> Path:
    """Where a file's next content is written; always the same, so that one that was left behind is found."""
    return real.with_name(f".{real.name}.edge-registry")


def discard(path: Path) -> None:
    """Removes a file where that is possible."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def sync(folder: Path) -> None:
    """Makes the names in a folder durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _common(one: bytes, other: bytes) -> int:
    """How many bytes at the beginning are the same."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))
