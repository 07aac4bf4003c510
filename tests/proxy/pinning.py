"""What tests of pins and whole images share: the proxy in this process, a memory store, a front as its upstream."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from app import main
from app.oci.digests import Digest
from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.images import Progress, Survey, bring
from app.proxy.pins import Pin, Pins
from app.proxy.proxy import Proxy
from app.proxy.repository import ProxiedRepository
from app.proxy.upstreams import Upstream
from app.registry import tags
from app.registry.bucket import Bucket
from app.registry.registry import Repository
from app.settings import Settings
from app.telemetry.metrics import Metrics
from storage import Driver
from storage.memory import MemoryDriver
from tests.services.app import Watched, _log

UP: Final = "up.test"
AMD: Final = ("linux/amd64",)


@dataclass(frozen=True, slots=True)
class Here:
    """A proxy and what its store holds. `log` is what it reported."""

    proxy: Proxy
    bucket: Bucket
    store: Watched
    log: io.StringIO

    @property
    def pins(self) -> Pins:
        return self.proxy.pins

    @property
    def upstream(self) -> Upstream:
        return self.proxy.upstreams[0]

    async def bring(
        self,
        path: str,
        reference: str,
        platforms: tuple[str, ...] = AMD,
        progress: Progress = lambda _come, _total: None,
        max_age: float = 0.0,
    ) -> Survey:
        """`images.bring` of a repository of the upstream."""
        name = named(path)
        tag = Digest(reference) if ":" in reference else Tag(reference)
        return await bring(self.proxy.cache, self.upstream, name, tag, platforms, progress, max_age=max_age)

    def repository(self, path: str) -> Repository:
        """What is here of a repository; asks nobody."""
        return Repository(self.bucket, named(path))

    def proxied(self, path: str) -> ProxiedRepository:
        """As clients see it."""
        return ProxiedRepository(self.proxy.cache, named(path), self.upstream)

    async def tagged(self, path: str, tag: str) -> Digest | None:
        """What a tag names here."""
        entry = await tags.read(self.bucket, named(path), Tag(tag))
        return entry.digest if entry else None

    async def troubles(self, pin: Pin) -> list[tuple[str, bool]]:
        """The images that a pin means, as far as is known here, and whether each is complete."""
        found = []
        for image in await self.pins.images(pin, ask=False):
            survey = await self.pins.status(image)
            found.append((str(image), survey is not None and survey.complete))
        return found


def named(path: str, upstream: str = UP) -> Name:
    return Name(f"{upstream}/{path}")


@asynccontextmanager
async def opened(
    folder: Path, url: str, *others: Mapping[str, Any], driver: Driver | None = None, alone: bool = True, **proxy: Any
) -> AsyncIterator[Here]:
    """The proxy of `up.test`, which is at `url`; `proxy` are further settings of it. Breakers probe after a moment."""
    upstreams = [{"name": UP, "url": url, "tag_ttl": 0, "prefetch": {"enabled": False}}, *others]
    given = {"upstreams": upstreams, "spool": {"folder": folder / "spool"}, **proxy}
    settings = Settings.model_validate({"storage": {"driver": "memory"}, "proxy": given})
    store = Watched(driver or MemoryDriver())
    written, metrics = io.StringIO(), Metrics()
    log = _log(written)
    with patch.object(main, "open_driver", lambda _settings: store):
        async with (
            main.open_bucket(settings, metrics, log) as bucket,
            main.open_proxy_of(settings, bucket, metrics, log, alone=alone) as found,
        ):
            assert found is not None
            for upstream in found.upstreams:
                upstream.breaker._first_pause = upstream.breaker._longest_pause = 0.2
            yield Here(found, bucket, store, written)


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Returns once it holds; there is no event for what a store of another task holds."""
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)
