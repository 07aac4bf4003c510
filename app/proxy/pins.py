"""Pins: images that are kept here whole and fresh, and whether it is safe to disconnect."""

import asyncio
import hashlib
import json
import platform
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Final

from app.oci.digests import Digest
from app.oci.errors import NameUnknown, RegistryError, TagInvalid
from app.oci.names import Name, parse_name
from app.oci.references import Tag, parse_reference
from app.proxy.cache import Cache
from app.proxy.images import EVERY, Progress, Survey, bring, survey
from app.proxy.leases import Leases, Other
from app.proxy.repository import ProxiedRepository
from app.proxy.upstreams import Upstream
from app.registry import keys, tags
from app.registry.bucket import side_by_side
from app.registry.failures import translated
from app.registry.registry import Registry
from storage import StorageError

_LEASE: Final = f"{keys.LEASES}pins"
_GLOB: Final = re.compile(r"[*?\[]")
_PAGE: Final = 1000
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}

Outcome = Callable[["Image", str | None], None]
"""Told an image and what went wrong with it, or None."""


def own_platform() -> str:
    """The platform of this machine, as images name it."""
    machine = platform.machine()
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


@dataclass(frozen=True, slots=True)
class Pin:
    """A reference as it was given, where repository and tag may be globs, and the platforms that are wanted."""

    reference: str
    platforms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Image:
    """One image that a pin means."""

    pin: Pin
    upstream: Upstream
    name: Name
    reference: Tag | Digest

    def __str__(self) -> str:
        return f"{self.name}{'@' if ':' in self.reference else ':'}{self.reference}"


class Pins:
    """The pins of a bucket; each is one small object."""

    def __init__(self, cache: Cache, upstreams: Sequence[Upstream], leases: Leases, default: str | None = None) -> None:
        self._cache = cache
        self._driver = cache.bucket.driver
        self._by_name = {name: upstream for upstream in upstreams for name in upstream.names}
        self._default = default
        self._leases = leases

    @translated
    async def add(self, reference: str, platforms: Sequence[str]) -> Pin:
        """Remembers a pin. Raises NameUnknown, NameInvalid, TagInvalid, DigestInvalid for what names no upstream's image."""
        self._split(reference)
        pin = Pin(reference, tuple(platforms) or (own_platform(),))
        await self._driver.put(_key(reference), json.dumps(asdict(pin)).encode())
        return pin

    @translated
    async def remove(self, reference: str) -> bool:
        """Forgets a pin; False when there was none. What it kept stays until it is evicted."""
        known = {pin.reference for pin in await self.all()}
        await self._driver.delete(_key(reference))
        return reference in known

    @translated
    async def all(self) -> list[Pin]:
        """Every pin, in the order of their references."""
        found: list[Pin] = []
        after, more = "", True
        while more:
            page = await self._driver.list(keys.PINS, after=after)
            bodies = await side_by_side(self._driver.get, [entry.key for entry in page.entries])
            documents = [json.loads(body.data) for body in bodies]
            found += [Pin(document["reference"], tuple(document["platforms"])) for document in documents]
            more, after = page.more, page.entries[-1].key if page.entries else ""
        return sorted(found, key=lambda pin: pin.reference)

    async def images(self, pin: Pin, *, ask: bool = True) -> list[Image]:
        """What a pin means now; globs of tags are asked of the upstream, where `ask`, else of what is here.

        Raises NameUnknown, Denied, Unavailable.
        """
        upstream, names, reference = self._split(pin.reference)
        found: list[Image] = []
        for name in [parse_name(names)] if not _GLOB.search(names) else await self._known(names):
            if not _GLOB.search(reference):
                tag, digest = parse_reference(reference)
                found.append(Image(pin, upstream, name, tag or digest or Tag("latest")))
                continue
            repository = ProxiedRepository(self._cache, name, upstream)
            listed = await _all_tags(repository.tags.list if ask else tags.Tags(self._cache.bucket, name).list)
            found += [Image(pin, upstream, name, tag) for tag in listed if fnmatchcase(tag, reference)]
        return found

    async def bring(self, image: Image, progress: Progress) -> Survey:
        """Fetches an image whole. Raises ManifestUnknown, Denied, Unavailable."""
        return await bring(self._cache, image.upstream, image.name, image.reference, image.pin.platforms, progress)

    async def status(self, image: Image) -> Survey | None:
        """What of an image is here, without asking anybody; None where not even the tag is known."""
        digest = await self._digest(image)
        return None if digest is None else await survey(self._cache.bucket, image.name, digest, image.pin.platforms)

    async def digests(self) -> Collection[tuple[Name, Digest]]:
        """The manifests that pins name: eviction keeps them with all that they need."""
        found: set[tuple[Name, Digest]] = set()
        for pin in await self.all():
            for image in await self.images(pin, ask=False):
                digest = await self._digest(image)
                if digest is not None:
                    found.add((image.name, digest))
        return found

    async def refresh(self, told: Outcome) -> None:
        """Fetches what is missing or has moved of every pin, one image after the other."""
        for pin in await self.all():
            try:
                images = await self.images(pin)
            except RegistryError as exc:
                upstream, names, reference = self._split(pin.reference)
                told(Image(pin, upstream, Name(names), Tag(reference)), exc.message)
                continue
            for image in images:
                try:
                    await self.bring(image, lambda _come, _total: None)
                except RegistryError as exc:
                    told(image, exc.message)
                else:
                    told(image, None)

    async def keep_fresh(self, every: float, told: Outcome) -> None:
        """Refreshes for ever, at one replica at a time."""
        while True:
            await asyncio.sleep(every)
            try:
                lease = await self._leases.take(_LEASE, {})
                if not isinstance(lease, Other):
                    async with lease:
                        await self.refresh(told)
            except (RegistryError, StorageError):
                continue  # the store is away; the next round comes

    @translated
    async def _digest(self, image: Image) -> Digest | None:
        if ":" in image.reference:
            return Digest(image.reference)
        entry = await tags.read(self._cache.bucket, image.name, Tag(image.reference))
        return entry.digest if entry else None

    async def _known(self, pattern: str) -> list[Name]:
        """Cached repositories whose names match."""
        found: list[Name] = []
        last: Name | None = None
        while True:
            names, more = await Registry(self._cache.bucket).catalog(_PAGE, last)
            found += [name for name in names if fnmatchcase(name, pattern)]
            if not more:
                return found
            last = names[-1]

    def _split(self, text: str) -> tuple[Upstream, str, str]:
        """Upstream, cached repository (or glob) and tag, digest (or glob) of a reference."""
        path, at, digest = text.strip().partition("@")
        head, colon, tag = path.rpartition(":")
        if not colon or "/" in tag:
            head, tag = path, ""
        first, _, rest = head.partition("/")
        upstream = self._by_name.get(first.lower()) if rest else None
        if upstream is None and self._default is not None and "." not in first:
            upstream, rest = self._by_name[self._default], head
        if upstream is None:
            raise NameUnknown(f"{text[:200]} begins with no upstream's name")
        reference = digest if at else tag or "latest"
        if not _GLOB.search(reference):
            parse_reference(reference)
        elif not re.fullmatch(r"[A-Za-z0-9._*?\[\]!-]{1,128}", reference):
            raise TagInvalid(detail={"tag": reference[:128]})
        names = upstream.cached(rest)
        if not _GLOB.search(names):
            parse_name(names)
        return upstream, names, reference


def unique(platforms: Iterable[str]) -> list[str]:
    """Platforms, each once; EVERY stands for all."""
    found = list(dict.fromkeys(platforms))
    return [EVERY] if EVERY in found else found


def _key(reference: str) -> str:
    return f"{keys.PINS}{hashlib.sha256(reference.encode()).hexdigest()}"


async def _all_tags(listed: Callable[[int, Tag | None], Awaitable[tuple[Sequence[Tag], bool]]]) -> list[Tag]:
    found: list[Tag] = []
    while True:
        page, more = await listed(_PAGE, found[-1] if found else None)
        found += page
        if not more or not page:
            return found
