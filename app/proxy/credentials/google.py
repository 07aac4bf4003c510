"""Logins to Google Artifact Registry: an access token, by Workload Identity, key file or metadata server."""

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

from app.errors import StartError
from app.proxy.credentials.login import Login, about
from app.proxy.credentials.remembered import Answer, Remembered
from app.proxy.credentials.tokens import KeyFile, MetadataServer, Token, Unusable
from app.proxy.credentials.transport import Transport, trust
from app.proxy.errors import Denied, Unreachable, UpstreamError

_USER: Final = "oauth2accesstoken"
_SECONDS: Final = 8.0
"""Seconds for all requests of one exchange."""

_AHEAD: Final = 300.0
"""Seconds before a token's end in which a new one is asked for."""

_MARGIN: Final = 10.0
"""Seconds before its end in which a token is not used any more: a request takes its time."""

_SHORTEST: Final = 60.0
_LONGEST: Final = 12 * 3600.0
"""Bounds of a token's life in seconds: impersonation tells its end by Google's clock, and ours may be wrong."""


class TokenSource(Protocol):
    """Where access tokens come from."""

    identity: str

    def token(self, transport: Transport) -> Token:
        """A new token; blocking. Raises Unusable, or Unreachable from the transport."""
        ...


class Google:
    """The token of one identity, the same for every host that it is used for."""

    def __init__(
        self, source: TokenSource, *, seconds: float = _SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.identity = f"google:{source.identity}"
        self._source = source
        self._seconds = seconds
        self._context: ssl.SSLContext | None = None
        self._remembered = Remembered(self._ask, clock=clock)
        # A thread of its own: a name server that does not answer holds it for long.
        self._thread = ThreadPoolExecutor(1, "google-token")

    async def login(self, host: str, *, renew: bool = False) -> Login | None:
        try:
            return await self._remembered.login(renew=renew)
        except UpstreamError as exc:
            raise about(host, exc) from None

    async def _ask(self) -> Answer:
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._exchange)
        try:
            token = await asyncio.wait_for(running, self._seconds + 1)
        except TimeoutError:
            raise Unreachable("no Google token in time") from None
        life = max(_SHORTEST, min(token.seconds, _LONGEST))
        return Answer(Login(_USER, token.text), life - min(_AHEAD, life / 2), life - _MARGIN)

    def _exchange(self) -> Token:
        if self._context is None:
            self._context = trust()
        transport = Transport(self._context, self._seconds)
        try:
            return self._source.token(transport)
        except Unusable as exc:
            raise _meaning(exc, transport) from None
        finally:
            transport.close()


def open_google(file: Path | None) -> Google:
    """The credentials of `file`, else of GOOGLE_APPLICATION_CREDENTIALS, else of the metadata server; dials nobody.

    Blocking. Raises StartError for a file that cannot be used, and where google-auth is missing.
    """
    named = file or (Path(path) if (path := os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")) else None)
    if named is None:
        return Google(MetadataServer())
    if not _installed():
        raise StartError("Google credentials need a package that is missing: pip install 'edge-registry[google]'")
    try:
        return Google(KeyFile(named))
    except Unusable as exc:
        raise StartError(f"the Google credentials in {named} cannot be used: {exc}") from None


def _installed() -> bool:
    try:
        return find_spec("google.auth") is not None
    except ModuleNotFoundError:  # the parent package is missing too
        return False


def _meaning(exc: Unusable, transport: Transport) -> UpstreamError:
    """A refusal is one that a server gave, or that our own files caused; nonsense with status 200 is a portal's."""
    if transport.status is None:
        return Denied(f"the Google credentials cannot be used: {exc}")
    if transport.status < 400:
        return Unreachable("Google's token service answers what is no token")
    code = f" {transport.refusal}" if transport.refusal else ""
    return Denied(f"Google refuses the credentials ({transport.status}{code})")
