"""Signatures that every replica makes and accepts, with keys that lie in the bucket: nobody configures a secret.

A key is never overwritten. Sign with the least listed, accept any listed, look again for an unknown one (design, 6).
"""

import asyncio
import hmac
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from app.registry import keys
from storage import Driver

_LOOK_AGAIN: Final = 1.0
"""Seconds between two looks for unknown keys: a forged token costs at most one listing a second."""
_ID: Final = 8


class Signing:
    """Signs short payloads. `start` once before use."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._secrets: dict[str, bytes] = {}
        self._looked = 0.0
        self._looking = asyncio.Lock()

    async def start(self) -> None:
        """Reads the bucket's keys, and makes the first. Raises StorageError."""
        await self._look()
        if not self._secrets:
            await self._driver.put(f"{keys.SIGNING_KEYS}{keys.fresh()}", secrets.token_bytes(32))
            await self._look()

    def sign(self, payload: bytes, context: str) -> str:
        """A URL-safe token that holds `payload`, valid only with the same `context`."""
        name = min(self._secrets)
        code = self._code(self._secrets[name], name, payload, context)
        return f"{name[:_ID]}.{_encode(payload)}.{_encode(code)}"

    async def verify(self, token: str, context: str) -> bytes | None:
        """The payload, or None for a token that no key of the bucket made for this context."""
        try:
            known, payload, code = token.split(".")
            data, given = _decode(payload), _decode(code)
        except ValueError:
            return None
        name = self._named(known)
        if name is None and len(known) == _ID:
            name = await self._sought(known)
        if name is None:
            return None
        expected = self._code(self._secrets[name], name, data, context)
        return data if hmac.compare_digest(given, expected) else None

    async def _sought(self, known: str) -> str | None:
        """Looks for a key that another replica made since; waits for its turn, so that no true token is refused."""
        arrived = time.monotonic()
        async with self._looking:
            if self._looked < arrived:
                await asyncio.sleep(max(0.0, self._looked + _LOOK_AGAIN - arrived))
                await self._look()
        return self._named(known)

    def _named(self, known: str) -> str | None:
        return next((name for name in self._secrets if len(known) == _ID and name.startswith(known)), None)

    async def _look(self) -> None:
        self._looked = time.monotonic()
        for entry in (await self._driver.list(keys.SIGNING_KEYS)).entries:
            name = entry.key.removeprefix(keys.SIGNING_KEYS)
            if name not in self._secrets:
                self._secrets[name] = (await self._driver.get(entry.key)).data

    @staticmethod
    def _code(secret: bytes, name: str, payload: bytes, context: str) -> bytes:
        return hmac.digest(secret, b"\0".join((name.encode(), context.encode(), payload)), "sha256")[:20]


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii", "strict") + b"=" * (-len(text) % 4))
