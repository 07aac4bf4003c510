"""The watched folder: whoever drops an archive into it finds its images in the registry. Nothing in it is ever changed.

It is looked at again and again rather than listened to: shared folders of a network tell nobody what happens in them. An
archive that was the same in two looks is complete. What was imported is remembered in the store, by name, size and time, so
that neither a restart nor another replica on the same folder imports it twice.
"""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.oci.errors import RegistryError, StoreFull, Unavailable
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.leases import Leases, Other
from app.transfer.errors import CutShort, shown
from app.transfer.imports.importing import Imported, Importer, Wish
from storage import NotFound, StorageError

ENDINGS: Final = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_LISTS: Final = frozenset({"index.json", "manifest.json"})
_DONE: Final = f"{keys.REPORTS}imports/"
_LEASES: Final = f"{keys.LEASES}imports/"
_UNFINISHED: Final = 15.0
"""Seconds after which an archive that is cut short, and does not grow, is taken for what it is."""
_OUTAGE: Final = 30.0
"""Seconds after which a store that failed is tried again."""

Report = Callable[[str, str, Mapping[str, Any]], None]
"""Takes a level, an event and its fields."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An archive as one look found it; `path` is relative to the folder. A layout counts with all that is in it."""

    path: str
    size: int
    modified: int
    files: int = 1

    @property
    def mark(self) -> str:
        """Names it in the store."""
        return hashlib.sha256(json.dumps([self.path, self.size, self.modified, self.files]).encode()).hexdigest()


class Watcher:
    """Watches one folder for this replica."""

    def __init__(self, bucket: Bucket, importer: Importer, folder: Path, interval: float, report: Report) -> None:
        """`interval` in seconds between two looks."""
        self._bucket = bucket
        self._importer = importer
        self._folder = folder
        self._interval = interval
        self._report = report
        self._leases = Leases(bucket.driver, supported=bucket.capabilities.conditional_put)
        self._before: set[Seen] = set()
        self._settled: set[Seen] = set()
        self._later: dict[Seen, float] = {}
        self._lost = False

    async def run(self) -> None:
        """Watches for ever."""
        while True:
            try:
                await self.look()
            except Exception as exc:  # noqa: BLE001  (a main loop: one archive must not end it)
                self._report("error", "watched folder", {"error": f"{type(exc).__name__}: {exc}"})
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """One look: imports what was the same in the one before."""
        try:
            now = await asyncio.to_thread(lambda: set(archives(self._folder)))
        except OSError as exc:
            if not self._lost:
                self._report("warning", "watched folder", {"folder": str(self._folder), "error": exc.strerror})
            self._lost = True
            return
        self._lost = False
        for seen in sorted(now & self._before - self._settled, key=lambda seen: seen.path):
            if self._later.get(seen, 0.0) <= time.monotonic():
                await self._take(seen)
        self._before, self._settled = now, self._settled & now
        self._later = {seen: when for seen, when in self._later.items() if seen in now}

    async def _take(self, seen: Seen) -> None:
        """Imports an archive unless that was done, or is being done elsewhere; whatever is wrong is said once."""
        try:
            if await self._done(seen) or await self._imported(seen):
                self._settled.add(seen)
        except CutShort as exc:
            if seen in self._later:
                self._fail(seen, exc.message)
            self._later[seen] = time.monotonic() + _UNFINISHED
        except (Unavailable, StoreFull, StorageError) as exc:
            if seen not in self._later:
                self._report("warning", "import put off", {"file": seen.path, "error": str(exc)})
            self._later[seen] = time.monotonic() + _OUTAGE
        except RegistryError as exc:
            self._fail(seen, exc.message)
        except OSError as exc:
            self._fail(seen, exc.strerror or str(exc))
        except Exception as exc:  # noqa: BLE001  (a main loop: one archive must not keep all others out)
            self._fail(seen, f"{type(exc).__name__}: {exc}")

    async def _imported(self, seen: Seen) -> bool:
        """Whether it is dealt with; False while another replica is at it."""
        lease = await self._leases.take(f"{_LEASES}{seen.mark}", {"file": seen.path})
        if isinstance(lease, Other):
            return False
        async with lease:
            if await self._done(seen):
                return True
            wish = Wish(by=f"import:{shown(seen.path)}")
            found = await self._importer.from_path(self._folder / seen.path, wish)
            for image in found:
                self._tell(seen, image)
            if all(image.trouble is None for image in found):
                body = {"file": seen.path, "size": seen.size, "time": round(time.time(), 3), "images": _names(found)}
                await self._bucket.driver.put(f"{_DONE}{seen.mark}", json.dumps(body).encode())
        return True

    async def _done(self, seen: Seen) -> bool:
        """Whether a replica has imported it."""
        with suppress(NotFound):
            await self._bucket.driver.stat(f"{_DONE}{seen.mark}")
            return True
        return False

    def _tell(self, seen: Seen, image: Imported) -> None:
        if image.trouble is None:
            fields = {"file": seen.path, "image": image.name, "digest": image.digest, "new_bytes": image.new}
            self._report("info", "imported", fields)
        else:
            self._report("error", "import failed", {"file": seen.path, "image": image.image, "error": image.trouble})

    def _fail(self, seen: Seen, reason: str) -> None:
        self._settled.add(seen)
        self._report("error", "import failed", {"file": seen.path, "error": reason})


def archives(folder: Path) -> Iterator[Seen]:
    """Every archive and every layout below a folder. Names that begin with a dot are passed over. Raises OSError."""
    os.stat(folder)
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if root != str(folder) and not _LISTS.isdisjoint(files):
            folders.clear()
            with suppress(FileNotFoundError):
                yield _layout(Path(root), os.path.relpath(root, folder))
            continue
        for name in files:
            path = os.path.join(root, name)
            if not name.startswith(".") and name.endswith(ENDINGS) and os.path.isfile(path):
                with suppress(FileNotFoundError):
                    status = os.stat(path)
                    yield Seen(os.path.relpath(path, folder), status.st_size, status.st_mtime_ns)


def is_layout(folder: Path) -> bool:
    """Whether a folder is one archive, rather than a place for archives."""
    return any((folder / name).is_file() for name in _LISTS)


def _layout(folder: Path, path: str) -> Seen:
    size = modified = count = 0
    for root, _, files in os.walk(folder):
        for name in files:
            status = os.lstat(os.path.join(root, name))
            size, modified, count = size + status.st_size, max(modified, status.st_mtime_ns), count + 1
    return Seen(path, size, modified, count)


def _names(found: list[Imported]) -> list[str]:
    return [image.name for image in found]
