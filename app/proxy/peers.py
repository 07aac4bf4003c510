"""Other replicas: following a transfer that one of them owns, and letting them follow ours.

A request to a peer carries a token that the bucket's key signed: who can make one can read the bucket anyway.
"""

import time
from collections.abc import AsyncGenerator
from typing import Final

import aiohttp

from app.oci.digests import Digest
from app.registry.signing import Signing

PATH: Final = "/peer/blobs/"
"""Where a replica serves its running transfers; the digest follows."""
_CONTEXT: Final = "peer"
_LIFE: Final = 120
"""Seconds for which a token is accepted; clocks of replicas may differ by less."""
_TIMES: Final = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=20)
_STRIDE: Final = 512 << 10


class PeerGone(Exception):
    """The peer does not answer, has broken off, or has no such transfer any more."""


class Peers:
    """`url` is where other replicas reach this one."""

    def __init__(self, url: str, signing: Signing) -> None:
        self.url = url
        self._signing = signing
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Opens the pool; dials nobody. A peer's certificate is not verified: the token proves us, the digest proves it."""
        # A connection a request: where several processes share the port, the next one may reach the one that was meant.
        connector = aiohttp.TCPConnector(limit=256, ssl=False, force_close=True)
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_STRIDE,
            timeout=_TIMES,
        )

    async def close(self) -> None:
        """Closes the pool."""
        if self._session is not None:
            await self._session.close()

    def follow(self, digest: Digest, url: str) -> "PeerTransfer":
        """The transfer of this blob at the replica that lives at `url`."""
        assert self._session is not None, "start() first"  # noqa: S101
        return PeerTransfer(self._session, f"{url}{PATH}{digest}", self._token(digest))

    async def admits(self, token: str, digest: Digest) -> bool:
        """Whether a replica of this bucket made the token, for this blob and lately."""
        payload = await self._signing.verify(token, f"{_CONTEXT}\n{digest}")
        return payload is not None and abs(time.time() - int(payload)) < _LIFE

    def _token(self, digest: Digest) -> str:
        return self._signing.sign(str(int(time.time())).encode(), f"{_CONTEXT}\n{digest}")


class PeerTransfer:
    """A transfer that another replica owns. `mark` names it once it was `opened`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self.mark = ""
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    async def opened(self) -> int | None:
        """The blob's size in bytes, once bytes are on their way there. Raises PeerGone."""
        try:
            async with self._session.head(self._url, headers=self._headers, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise PeerGone
                self.mark = answer.headers["ETag"]
                return int(answer.headers["Content-Length"])
        except (aiohttp.ClientError, TimeoutError, OSError, KeyError, ValueError) as exc:
            raise PeerGone from exc

    async def chunks(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to `end` as the peer gets them, of the transfer that was opened. Raises PeerGone."""
        headers = self._headers | {"Range": f"bytes={start}-{end - 1}"}
        try:
            async with self._session.get(self._url, headers=headers, allow_redirects=False) as answer:
                if answer.status != 206 or answer.headers.get("ETag") != self.mark:
                    raise PeerGone
                async for chunk in answer.content.iter_any():
                    yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise PeerGone from exc
