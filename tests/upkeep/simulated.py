"""A store of millions of objects that takes no room: its listings are computed. Run it: `python -m tests.upkeep.simulated`."""

import argparse
import asyncio
import json
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

from app.oci.digests import Digest, digest_of
from app.oci.manifests import OCI_MANIFEST
from app.oci.names import Name
from app.registry import keys
from app.registry.keys import Copy, Entry
from storage import PAGE, Capabilities, Entry as Listed, Object, Page
from storage.memory import MemoryDriver
from tests.upkeep.yard import yard

LAYERS: Final = 8
IMAGES: Final = 100
"""Images of each repository; every tenth has no manifest any more."""
PER_IMAGE: Final = 3 * LAYERS + 1
"""Objects: bytes, links, derived keys, a manifest."""
_OLD: Final = 1_700_000_000.0


class Simulated:
    """Holds `repositories` times 100 images of eight layers each. What is written lies in memory, beside what is computed."""

    name = "memory"

    def __init__(self, repositories: int) -> None:
        self.repositories = repositories
        self.deleted = 0
        self.lists = 0
        self._written = MemoryDriver()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._written, name)

    @property
    def objects(self) -> int:
        """About how many there are."""
        return self.repositories * IMAGES * PER_IMAGE

    async def probe(self) -> Capabilities:
        return Capabilities()

    async def get(self, key: str) -> Object:
        if "/_manifests/" in key:
            name, digest = keys.placed(key)[0], keys.digest_below(key)
            return Object(_manifests(int(name[1:]))[digest], _OLD, "v")
        return await self._written.get(key)

    async def delete_many(self, keys: list[str], **given: Any) -> None:
        self.deleted += len(keys)
        await self._written.delete_many([key for key in keys if key.startswith("upkeep/")], **given)

    async def list(self, prefix: str, *, after: str = "", limit: int = PAGE) -> Page:
        self.lists += 1
        make = self._making(prefix)
        if make is None:
            return await self._written.list(prefix, after=after, limit=limit)
        found = list(islice(make(after), limit + 1))
        return Page(found[:limit], more=len(found) > limit)

    def _making(self, prefix: str) -> Callable[[str], Iterator[Listed]] | None:
        if prefix == keys.DATA:
            return self._data
        if prefix == keys.REPOSITORIES:
            return self._repositories
        if prefix == keys.HOLDERS:
            return self._holders
        if prefix.startswith(keys.HOLDERS):
            number = _number(keys.digest_below(prefix + "x"))
            return lambda _: iter([_listed(_holder(number))])
        if prefix.startswith(keys.REPOSITORIES) and prefix.endswith("/_manifests/"):
            name = keys.placed(prefix)[0]
            return lambda after: _after(_manifest_keys(int(name[1:])), after)
        return None

    def _data(self, after: str) -> Iterator[Listed]:
        first = int(after.removeprefix(keys.DATA), 16) + 1 if after else 0
        for number in range(first, self.repositories * IMAGES * LAYERS):
            yield _listed(keys.data(f"{number:032x}"), 1000)

    def _holders(self, after: str) -> Iterator[Listed]:
        first = _number(keys.digest_below(after)) + 1 if after else 0
        for number in range(first, self.repositories * IMAGES * LAYERS):
            yield _listed(_holder(number))

    def _repositories(self, after: str) -> Iterator[Listed]:
        first = int(keys.placed(after)[0][1:]) if after else 0
        for repository in range(first, self.repositories):
            yield from _after(_link_keys(repository), after)
            yield from _after(_manifest_keys(repository), after)


def _after(found: list[str], after: str) -> Iterator[Listed]:
    for key in found[bisect_right(found, after) :]:
        yield _listed(key)


def _listed(key: str, size: int = 0) -> Listed:
    return Listed(key, size, _OLD, "v")


def _digest(number: int) -> Digest:
    return Digest(f"sha256:{number:064x}")


def _number(digest: Digest) -> int:
    return int(digest.partition(":")[2], 16)


def _name(repository: int) -> Name:
    return Name(f"r{repository:07}")


def _holder(number: int) -> str:
    return keys.holder(_digest(number), Copy(f"{number:032x}", 1000), _name(number // (IMAGES * LAYERS)))


@lru_cache(4)
def _link_keys(repository: int) -> list[str]:
    first = repository * IMAGES * LAYERS
    numbers = range(first, first + IMAGES * LAYERS)
    return [keys.link(_name(repository), _digest(n), Copy(f"{n:032x}", 1000)) for n in numbers]


@lru_cache(4)
def _manifests(repository: int) -> dict[Digest, bytes]:
    found = {}
    for image in range(IMAGES):
        if image % 10:
            first = (repository * IMAGES + image) * LAYERS
            layers = [{"digest": _digest(number)} for number in range(first, first + LAYERS)]
            data = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers}).encode()
            found[digest_of(data)] = data
    return found


@lru_cache(4)
def _manifest_keys(repository: int) -> list[str]:
    entries = [Entry(digest, "0" * 32, OCI_MANIFEST, len(data)) for digest, data in _manifests(repository).items()]
    return sorted(keys.manifest(_name(repository), entry) for entry in entries)


def resident() -> float:
    """MiB that this process has had in memory at most."""
    status = Path("/proc/self/status").read_text()  # getrusage counts what the parent had when it forked
    return int(re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[0]) / 1024


async def main(objects: int, *, dry_run: bool) -> None:
    """Prints what a collection of so many objects takes."""

    async def pass_(_: float) -> None:
        return

    store = Simulated(objects // (IMAGES * PER_IMAGE))
    async with yard(store, pass_) as at:
        before = resident()
        for turn in ("first", "second"):
            began = time.monotonic()
            report = await at.collect(dry_run=dry_run)
            took = time.monotonic() - began
            gone = {kind: found.count for kind, found in report.gone.items()}
            print(
                f"{turn}: {report.state}, {report.objects:,} keys in {took:.1f} s, {gone} gone, {store.lists:,} lists,"
            )
            print(f"  memory at most {resident():.0f} MiB, {before:.0f} before")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("objects", type=int)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    asyncio.run(main(options.objects, dry_run=options.dry_run))
