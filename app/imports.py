"""Wiring of imports: from settings to an importer, and to the folder that is watched."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from app.api.imports import Take
from app.errors import StartError
from app.proxy.namespace import Namespace
from app.registry.bucket import Bucket
from app.settings import Settings
from app.telemetry.logs import Log
from app.transfer.imports.importing import Imported, Importer, Wish
from app.transfer.imports.watching import Watcher


def create_importer(settings: Settings, bucket: Bucket) -> Importer:
    """Imports of archives, by the names that clients use with these settings."""
    return Importer(bucket, namespaces(settings), own_names(settings), settings.transfer)


def taking(importer: Importer) -> Take:
    async def take(chunks: AsyncIterator[bytes], **wish: Any) -> Sequence[Imported]:
        return await importer.from_stream(chunks, Wish(**wish))

    return take


async def open_watcher(settings: Settings, bucket: Bucket, importer: Importer, log: Log) -> Watcher | None:
    """Who watches the folder of the settings; None where there is none to watch. Raises StartError."""
    folder = settings.transfer.watch
    if folder is None:
        return None
    if settings.registry.read_only:
        raise StartError("transfer.watch: registry.read_only is set, and a registry that is read-only imports nothing")
    if not await asyncio.to_thread(folder.is_dir):
        raise StartError(f"transfer.watch: there is no folder {folder}")

    def report(level: str, event: str, fields: Mapping[str, Any]) -> None:
        getattr(log, level)(event, **fields)

    return Watcher(bucket, importer, folder, settings.transfer.watch_interval, report)


def namespaces(settings: Settings) -> list[Namespace]:
    return [Namespace(upstream) for upstream in settings.proxy.upstreams]


def own_names(settings: Settings) -> list[str]:
    """Hosts under which clients know this registry."""
    public = urlsplit(settings.http.public_url or "")
    return [name for name in (public.netloc.lower(), public.hostname) if name]
