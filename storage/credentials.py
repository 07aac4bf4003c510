"""Where S3 keys come from: the settings, else botocore's chain (environment, profile, web identity, container, instance)."""

import asyncio
import time
from typing import Any, Final, Protocol

from storage.errors import AccessDenied, Unavailable
from storage.sigv4 import Keys

_REMEMBERED: Final = 60.0
"""Seconds for which keys of the chain are used without asking it again; it renews them itself long before they end."""


class Credentials(Protocol):
    """A source of keys."""

    async def keys(self) -> Keys:
        """The keys to sign with now. Raises AccessDenied where there are none."""
        ...


class StaticCredentials:
    """Keys that never change."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def keys(self) -> Keys:
        return self._keys


class ChainCredentials:
    """botocore's chain, asked off the hot path. Imported on use: it costs 20 MB and most sites have static keys."""

    def __init__(self) -> None:
        self._source: Any = None
        self._known: Keys | None = None
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def keys(self) -> Keys:
        if self._known is not None and time.monotonic() < self._until:
            return self._known
        async with self._lock:
            if self._known is None or time.monotonic() >= self._until:
                self._known = await self._ask()
                self._until = time.monotonic() + _REMEMBERED
            return self._known

    async def _ask(self) -> Keys:
        from aiobotocore.session import get_session
        from botocore.exceptions import BotoCoreError

        try:
            if self._source is None:
                self._source = await get_session().get_credentials()
            if self._source is None:
                raise AccessDenied("no S3 credentials: set storage.s3.access_key and storage.s3.secret_key")
            frozen = await self._source.get_frozen_credentials()
        except (BotoCoreError, OSError) as exc:
            raise Unavailable(f"the S3 credentials cannot be had: {type(exc).__name__}") from exc
        return Keys(frozen.access_key, frozen.secret_key, frozen.token)
