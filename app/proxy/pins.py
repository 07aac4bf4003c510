"""Pins: images that are kept here whole and fresh, and whether it is safe to disconnect."""

import asyncio
import hashlib
import json
import platform
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from app.oci.digests import Digest, is_digest
from app.oci.errors import NameUnknown, RegistryError, Unavailable
from app.oci.names import Name, parse_name
from app.oci.platforms import EVERY
from app.oci.references import Tag, parse_reference
from app.proxy.cache import Cache
from app.proxy.images import Progress, Survey, bring, outline, survey
from app.proxy.repository import ProxiedRepository
from app.proxy.selection import Selection, Selector
from app.proxy.upstreams import Upstream
from app.quantities import size_text
from app.registry import keys, tags
from app.registry.bucket import side_by_side
from app.registry.failures import translated
from app.registry.leases import Leases, Other
from app.registry.listing import every
from app.registry.registry import Registry
from storage import NotFound, StorageError

_LEASE: Final = f"{keys.LEASES}pins"
_MEANT: Final = ".images"
_PAGE: Final = 1000
_FIRST: Final = 30.0
"""Seconds after the start of a server in which its first round begins."""
_LOOK: Final = 0.1
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}

Told = Callable[[str, str | None], None]
"""Told an image, or a pin whose images are not known, and what went wrong with it, or None."""


def own_platform() -> str:
    """The platform of this machine, as images name it."""
    machine = platform.machine()
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


@dataclass(frozen=True, slots=True)
class Pin:
    """A reference in its one spelling, where repository and tag may be globs, and the platforms that are wanted."""

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
        return str(Selection(self.upstream, self.name, self.reference))


class Pins:
    """The pins of a bucket; each is one small object."""

    def __init__(self, cache: Cache, upstreams: Sequence[Upstream], leases: Leases, default: str | None = None) -> None:
        self._cache = cache
        self._driver = cache.bucket.driver
        self._selector = Selector(upstreams, default)
        self._leases = leases

    def parse(self, reference: str) -> Selection:
        """What a reference means. Raises NameUnknown, NameInvalid, TagInvalid, DigestInvalid."""
        return self._selector.parse(reference)

    @translated
    async def add(self, reference: str, platforms: Sequence[str]) -> Pin:
        """Remembers a pin, for these platforms and those it was pinned for before; without any, for this machine's.

        Raises as `parse`, and Unavailable.
        """
        text = str(self.parse(reference))
        known = _pin(await self._document(_key(text)))
        pin = Pin(text, tuple(unique([*(known.platforms if known else ()), *platforms]) or [own_platform()]))
        await self._driver.put(_key(text), json.dumps(asdict(pin)).encode())
        return pin

    @translated
    async def remove(self, reference: str) -> bool:
        """Forgets a pin; False when there was none. What it kept stays until it is evicted. Raises Unavailable."""
        try:
            text = str(self.parse(reference))
        except RegistryError:
            text = reference.strip()  # its upstream may have left the configuration
        known = await self._document(_key(text))
        await self._driver.delete_many([_key(text), _key(text) + _MEANT])
        return known is not None

    @translated
    async def all(self) -> list[Pin]:
        """Every pin, in the order of their references. Raises Unavailable, also where one cannot be read."""
        listed = [entry.key async for entry in every(self._driver, keys.PINS)]
        found = [key for key in listed if not key.endswith(_MEANT)]
        pins = map(_pin, await side_by_side(self._document, found))
        return sorted((pin for pin in pins if pin is not None), key=lambda pin: pin.reference)

    @translated
    async def images(self, pin: Pin, *, ask: bool = True) -> list[Image]:
        """What a pin means now, or, without `ask`, what it meant when that was last asked, else by what is here.

        Raises NameUnknown, Denied, Unavailable.
        """
        selection = self.parse(pin.reference)
        if not selection.open:
            tag, digest = parse_reference(selection.reference)
            return [Image(pin, selection.upstream, parse_name(selection.names), tag or digest or Tag("latest"))]
        meant = await self._asked(pin, selection) if ask else None
        if meant is None:
            meant = await self._document(_key(pin.reference) + _MEANT)
        if meant is None:
            meant = await self._found(selection)
        return [Image(pin, selection.upstream, Name(name), Tag(tag)) for name, tag in meant]

    async def bring(self, image: Image, progress: Progress, *, max_age: float = 0.0) -> Survey:
        """Fetches an image whole. Raises ManifestUnknown, BlobUnknown, Denied, Unavailable."""
        wanted = image.pin.platforms
        return await bring(self._cache, image.upstream, image.name, image.reference, wanted, progress, max_age=max_age)

    async def wait_for(self, upstream: Upstream, seconds: float) -> bool:
        """Waits until an upstream that could not be reached answers again; False where it does not in that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while upstream.breaker.state != "closed":  # noqa: ASYNC110  (a breaker tells nobody)
                    await asyncio.sleep(_LOOK)
        return upstream.breaker.state == "closed"

    async def status(self, image: Image) -> Survey | None:
        """What of an image is here, asking nobody; None where not even its tag is known. Raises Unavailable."""
        digest = await self._digest(image)
        return None if digest is None else await survey(self._cache.bucket, image.name, digest, image.pin.platforms)

    async def digests(self) -> Collection[tuple[Name, Digest]]:
        """The manifests of pinned images with their signatures: eviction keeps them, with all that they need.

        Raises Unavailable, so that nothing is evicted while it is not known what is pinned.
        """
        found: set[tuple[Name, Digest]] = set()
        for pin in await self.all():
            try:
                selection = self.parse(pin.reference)
            except RegistryError:
                continue  # its upstream has left the configuration, and with it what would evict
            images = set(await self.images(pin, ask=False))
            if selection.open:
                images |= {Image(pin, selection.upstream, *found) for found in await self._found(selection)}
            for image in images:
                digest = await self._digest(image)
                if digest is not None:
                    outlined = await outline(self._cache.bucket, image.name, digest, pin.platforms)
                    found |= {(image.name, manifest) for manifest in outlined.manifests}
        return found

    async def refresh(self, told: Told, *, max_age: float = 0.0) -> None:
        """Fetches what is missing or has moved of every pin, one image after the other, behind what clients want.

        A tag that was checked less than `max_age` seconds ago is not asked for. Raises Unavailable where the pins
        cannot be read; what goes wrong with one of them is told.
        """
        for pin in await self.all():
            try:
                images = await self.images(pin)
            except RegistryError as exc:
                told(pin.reference, exc.message)
                continue
            for image in images:
                told(str(image), await self._refreshed(image, max_age))

    async def keep_fresh(self, every: float, told: Told) -> None:
        """Refreshes for ever, every so many seconds, at one replica at a time."""
        await asyncio.sleep(min(every, _FIRST) * random.uniform(0.5, 1))  # noqa: S311  (spreads replicas)
        while True:
            try:
                lease = await self._leases.take(_LEASE, {})
                if not isinstance(lease, Other):
                    async with lease:
                        await self.refresh(told, max_age=every / 2)
            except (RegistryError, StorageError) as exc:
                told("all", str(exc))
            await asyncio.sleep(every)

    async def _refreshed(self, image: Image, max_age: float) -> str | None:
        """What went wrong with an image, if anything."""
        if image.upstream.breaker.state != "closed":
            return f"{image.upstream.name} cannot be reached"
        if not image.upstream.rates.spare():
            return f"what {image.upstream.name} still allows is kept for people"
        try:
            found = await self.bring(image, lambda _come, _total: None, max_age=max_age)
        except RegistryError as exc:
            return exc.message
        return lacking(found)

    @translated
    async def _digest(self, image: Image) -> Digest | None:
        if is_digest(image.reference):
            return Digest(image.reference)
        entry = await tags.read(self._cache.bucket, image.name, Tag(image.reference))
        return entry.digest if entry else None

    async def _asked(self, pin: Pin, selection: Selection) -> list[tuple[Name, Tag]] | None:
        """What the upstream's lists say, which is remembered; None where it could not be asked."""
        found: list[tuple[Name, Tag]] = []
        for name in await self._names(selection):
            repository = ProxiedRepository(self._cache, name, selection.upstream)
            try:
                listed = await _all_tags(repository.tags.list)
            except NameUnknown:
                if not selection.wide:
                    raise
                continue  # the upstream has it no more
            found += [(name, tag) for tag in listed if selection.wants(tag)]
            if repository.notes.warning is not None:
                return None
        await self._driver.put(_key(pin.reference) + _MEANT, json.dumps(found).encode())
        return found

    async def _found(self, selection: Selection) -> list[tuple[Name, Tag]]:
        """What is here."""
        found: list[tuple[Name, Tag]] = []
        for name in await self._names(selection):
            try:
                listed = await _all_tags(tags.Tags(self._cache.bucket, name).list)
            except NameUnknown:
                continue
            found += [(name, tag) for tag in listed if selection.wants(tag)]
        return found

    async def _names(self, selection: Selection) -> list[Name]:
        """The repository that is meant; of a glob, those that are cached."""
        if not selection.wide:
            return [parse_name(selection.names)]
        found: list[Name] = []
        last: Name | None = None
        while True:
            names, more = await Registry(self._cache.bucket).catalog(_PAGE, last)
            found += [name for name in names if selection.has(name)]
            if not more:
                return found
            last = names[-1]

    async def _document(self, key: str) -> Any:
        """What an object says; None where it is gone, or is no JSON."""
        try:
            return json.loads((await self._driver.get(key)).data)
        except NotFound:
            return None
        except ValueError as exc:
            raise Unavailable(f"the object {key} cannot be read: remove it") from exc


def unique(platforms: Iterable[str]) -> list[str]:
    """Platforms, each once; EVERY stands for all."""
    found = list(dict.fromkeys(platforms))
    return [EVERY] if EVERY in found else found


def lacking(found: Survey) -> str | None:
    """What an image lacks, in words; None for one that is complete."""
    words = [f"there is no image for {platform}" for platform in found.absent]
    if found.missing_manifests:
        words.append(f"{counted(len(found.missing_manifests), 'manifest')} missing")
    if found.missing_blobs:
        words.append(f"{counted(len(found.missing_blobs), 'blob')} missing ({size_text(found.missing_bytes)})")
    return ", ".join(words) or None


def counted(number: int, noun: str) -> str:
    """`1 blob`, `2 blobs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _pin(document: Any) -> Pin | None:
    """A pin as it was written; None for None. Raises Unavailable."""
    try:
        return None if document is None else Pin(str(document["reference"]), tuple(map(str, document["platforms"])))
    except (TypeError, KeyError) as exc:
        raise Unavailable(f"an object below {keys.PINS} is no pin: remove it") from exc


def _key(reference: str) -> str:
    return f"{keys.PINS}{hashlib.sha256(reference.encode()).hexdigest()}"


async def _all_tags(listed: Callable[[int, Tag | None], Awaitable[tuple[Sequence[Tag], bool]]]) -> list[Tag]:
    """Every page; an upstream that sends the same page again is not asked for ever."""
    found: dict[Tag, None] = {}
    last: Tag | None = None
    while True:
        page, more = await listed(_PAGE, last)
        before = len(found)
        found |= dict.fromkeys(page)
        if not more or len(found) == before:
            return list(found)
        last = page[-1]
