"""The store, and where wanted the upstreams, opened for one command of those who look after them."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from app import configuration
from app.cli import options
from app.cli.output import Failure
from app.errors import StartError
from app.oci.errors import RegistryError
from app.upkeep.errors import NoScratch

if TYPE_CHECKING:
    from app.proxy.proxy import Proxy
    from app.registry.bucket import Bucket
    from app.settings import Settings
    from app.telemetry.logs import Log

T = TypeVar("T")

_READ_ONLY: Final = (
    "registry.read_only is set, and a registry that is read-only takes nothing in; to do it all the same, set "
    "EDGE_REGISTRY_REGISTRY__READ_ONLY=false for this one command"
)


@dataclass(frozen=True, slots=True)
class Opened:
    """What a command works on; `proxy` is None where no upstream is configured, or none was asked for."""

    settings: "Settings"
    bucket: "Bucket"
    proxy: "Proxy | None"
    log: "Log"


def on_store(config: Path | None, work: Callable[[Opened], Awaitable[T]], *, upstreams: bool = False) -> T:
    """Runs `work` on the store of the configuration, in an event loop of its own; only errors are logged.

    Raises StartError, also for storage.driver memory, and Failure.
    """
    settings = configuration.resolve(options.read(config).settings)
    if settings.storage.driver == "memory":
        raise StartError("storage.driver is memory, which no other process sees: there is nothing to work on")
    from app.main import open_bucket, open_proxy_of  # `--help` need not wait for the web framework
    from app.telemetry.logs import open_log
    from app.telemetry.metrics import Metrics

    async def run() -> T:
        metrics, log = Metrics(), open_log("error", settings.log.format)
        async with open_bucket(settings, metrics, log) as bucket:
            if not upstreams:
                return await work(Opened(settings, bucket, None, log))
            async with open_proxy_of(settings, bucket, metrics, log, alone=True) as proxy:
                return await work(Opened(settings, bucket, proxy, log))

    return finished(run())


def finished(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` in an event loop of its own. Raises Failure for what the registry refuses, or this machine."""
    try:
        return asyncio.run(work)
    except RegistryError as error:
        raise Failure(error.message) from error
    except NoScratch as error:
        raise Failure(str(error)) from error


def taking_in(command: Callable[..., None]) -> Callable[..., None]:
    """A command that brings content into the store; where registry.read_only is set, it raises StartError instead, unless
    it is a dry run."""

    @wraps(command)
    def checked(*, config: Path | None, **given: Any) -> None:
        if not given.get("dry_run") and configuration.load(config, os.environ, {}).settings.registry.read_only:
            raise StartError(_READ_ONLY)
        command(config=config, **given)

    return checked
