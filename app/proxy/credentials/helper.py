"""Logins that a program knows: docker's credential helpers."""

import json
import os
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from app.proxy.credentials.config import helper_key
from app.proxy.credentials.login import Login, about
from app.proxy.credentials.programs import Finished, run
from app.proxy.credentials.remembered import Answer, Remembered
from app.proxy.errors import Denied, Unreachable, UpstreamError

_SECONDS: Final = 10.0
"""Seconds after which a helper is ended."""

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_OWN: Final = ("EDGE_REGISTRY_", "REGISTRY_STORAGE_")
"""Beginnings of variables that hold our secrets and are no business of a helper."""

_NOT_FOUND: Final = "credentials not found"
_NETWORK: Final = re.compile(
    r"no such host|dial tcp|connection re(?:fused|set)|network is (?:unreachable|down)|no route to host|time-?d? ?out"
    r"|deadline exceeded|could not resolve|name resolution|could not connect|tls handshake|unexpected eof",
    re.IGNORECASE,
)


class Helper:
    """`docker-credential-<name> get`, run once for all who wait; its answer is used for `lifetime` seconds.

    Where it fails later, the last login goes on until the upstream refuses it: a helper that needs the network is of
    no use without, and then the upstream is to say that it cannot be reached.
    """

    def __init__(
        self, name: str, lifetime: float, *, seconds: float = _SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.identity = f"helper:{name}"
        self._program = f"docker-credential-{name}"
        self._named = _NAME.fullmatch(name) is not None  # a file may name any path
        self._lifetime = lifetime
        self._seconds = seconds
        self._clock = clock
        self._hosts: dict[str, Remembered] = {}

    async def login(self, host: str, *, renew: bool = False) -> Login | None:
        if not self._named:
            raise Denied(f"{host}: the name of its credential helper is refused")
        if host not in self._hosts:
            self._hosts[host] = Remembered(partial(self._ask, host), clock=self._clock)
        try:
            return await self._hosts[host].login(renew=renew)
        except UpstreamError as exc:
            raise about(host, exc) from None

    async def _ask(self, host: str) -> Answer:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
        try:
            finished = await run([self._program, "get"], helper_key(host).encode(), environment, self._seconds)
        except TimeoutError:
            raise Unreachable(f"{self._program} does not answer within {self._seconds:g} s") from None
        except OSError as exc:
            raise Denied(f"{self._program} cannot be started: {exc.strerror or type(exc).__name__}") from None
        return Answer(self._meaning(finished), self._lifetime, float("inf"))

    def _meaning(self, finished: Finished) -> Login | None:
        """What a helper says; none of its words go into an error, since some print tokens."""
        if finished.status == 0:
            return self._login(finished.output)
        said = (finished.output + b"\n" + finished.complaint).decode(errors="replace")
        if _NOT_FOUND in said.lower():
            return None
        if _NETWORK.search(said):
            raise Unreachable(f"{self._program} cannot reach its service")
        raise Denied(f"{self._program} ended with status {finished.status}")

    def _login(self, output: bytes) -> Login | None:
        try:
            answer = json.loads(output)
        except ValueError:
            raise Denied(f"{self._program} answers what is not JSON, or too much") from None
        username, secret = (answer.get("Username"), answer.get("Secret")) if isinstance(answer, dict) else (None, None)
        if not isinstance(username, str) or not isinstance(secret, str):
            raise Denied(f"{self._program} answers without Username and Secret")
        return Login(username, secret) if username and secret else None
