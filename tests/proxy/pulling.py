"""What tests of cached repositories share: the service in this process with a front as its upstream."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from app.proxy.routing import Routing
from app.proxy.upstreams import Upstream
from app.settings import Settings
from storage import Driver
from tests.services.app import Running, running

UP: Final = "up.test"
"""The upstream's name in tests that need one."""


def section(url: str, name: str = UP, **fields: Any) -> dict[str, Any]:
    """One entry of `proxy.upstreams`: no prefetch, tags checked each time, unless `fields` say otherwise."""
    return {"name": name, "url": url, "tag_ttl": 0, "prefetch": {"enabled": False}, **fields}


@asynccontextmanager
async def pulling(
    folder: Path,
    *upstreams: Mapping[str, Any],
    driver: Driver | None = None,
    proxy: Mapping[str, Any] | None = None,
    **sections: Any,
) -> AsyncIterator[Running]:
    """The service with these upstreams on a memory store, its spool in `folder`; `sections` are further settings."""
    chosen = {"upstreams": list(upstreams), "spool": {"folder": folder / "spool"}, **(proxy or {})}
    given = {"storage": {"driver": "memory"}, "proxy": chosen, **sections}
    async with running(Settings.model_validate(given), driver) as service:
        yield service


def routing_of(service: Running) -> Routing:
    """The routing of a service with upstreams."""
    found = service.app._first.v2._repositories
    assert isinstance(found, Routing)
    return found


def upstream_of(service: Running, name: str = UP) -> Upstream:
    """One upstream as the service knows it."""
    return routing_of(service)._upstreams[name]


def impatient(service: Running, name: str = UP) -> Upstream:
    """The upstream, whose breaker probes after a moment instead of ten seconds."""
    upstream = upstream_of(service, name)
    upstream.breaker._first_pause = upstream.breaker._longest_pause = 0.2
    return upstream


async def stored(service: Running, name: str, digest: str) -> None:
    """Returns once the blob is kept: its reader has all bytes a moment before."""
    folder = f"repositories/{name}/_blobs/{digest.replace(':', '/')}/"
    async with asyncio.timeout(20):
        while not await service.store.keys(folder):
            await asyncio.sleep(0.01)
