"""One upstream registry: can it be found, reached and trusted, does it take our login, and what is left of its limit."""

import asyncio
import socket
from typing import Final

from yarl import URL

from app.doctor.report import Check, failed, ok, warning
from app.errors import StartError
from app.proxy.answers import check_content, refusal
from app.proxy.authorization import Authorization, Grant, Place
from app.proxy.challenge import parse_challenges
from app.proxy.credentials import open_credentials
from app.proxy.errors import Denied, Portal, RateLimited, UpstreamError
from app.proxy.rates import RateLimit
from app.proxy.redirects import REDIRECTS, next_address
from app.proxy.settings import HUB, UpstreamSettings
from app.proxy.tokens import Tokens
from app.proxy.transport import Transport

LIMIT: Final = 5.0
"""Seconds for one upstream, all in all."""

_HUB_DIALLED: Final = "registry-1.docker.io"
_HUB_TRIAL: Final = "ratelimitpreview/test"
"""The repository of Docker Hub that is there to be asked what is left of the limit."""
_TRIAL: Final = "library/alpine"
_MANIFESTS: Final = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json"


class UpstreamExamination:
    """The examination of one upstream; `key` is where it stands in the configuration, `proxy.upstreams.0`."""

    def __init__(self, settings: UpstreamSettings, key: str) -> None:
        self._settings = settings
        self._key = key
        base = URL(settings.url)
        if base.host in HUB:
            base = base.with_host(_HUB_DIALLED)
        self._hub = base.host in HUB or settings.name in HUB
        self._origin = base.origin()
        path = base.raw_path.strip("/")
        api = path == "v2" or path.endswith("/v2")
        self._root = f"{self._origin}/{path}" if api else f"{self._origin}/v2"
        prefix = f"{path}/" if path and not api else ""
        self._trial = prefix + (_HUB_TRIAL if self._hub else _TRIAL)
        self._transport = Transport(settings, self._origin, lambda _level, _line: None)
        self._tokens = Tokens(self._transport, settings.name)
        self._authorization = Authorization(
            open_credentials(settings.credentials),
            self._tokens,
            name=settings.name,
            token_hosts=settings.token_hosts,
        )
        self._rates = RateLimit(settings.rate_reserve)

    async def examine(self) -> list[Check]:
        """The checks of this upstream, the later ones only where the earlier ones held."""
        try:
            await self._transport.start()
        except StartError as exc:
            return [failed(self._settings.name, str(exc), f"set {self._key}.tls to PEM files that fit")]
        try:
            return await self._examine()
        finally:
            await self._tokens.close()
            await self._transport.close()

    async def _examine(self) -> list[Check]:
        name = self._settings.name
        unknown = await self._unknown()
        if unknown is not None:
            return [unknown]
        try:
            challenges = await self._ping(None)
        except UpstreamError as exc:
            return [failed(name, exc.reason, self._unreachable_fix(exc))]
        reached = ok(name, f"{self._origin} answers{'' if challenges is None else ', and asks who we are'}")
        if challenges is None:
            return [reached, *self._unasked(), *await self._limit(None)]
        return [reached, *await self._login(challenges)]

    async def _unknown(self) -> Check | None:
        host, port = self._origin.host or "", self._origin.port
        try:
            await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            fix = f"mend DNS until `getent hosts {host}` answers, or the name in {self._key}.url"
            return failed(self._settings.name, f"the name {host} cannot be resolved", fix)
        return None

    async def _ping(self, grant: Grant | None) -> list[str] | None:
        """None where everybody, or this grant, is let in; else the challenges. Raises UpstreamError."""
        url = URL(f"{self._root}/", encoded=True)
        for _ in range(3):
            headers = {} if grant is None else {"Authorization": grant.header}
            async with self._transport.send("GET", url, headers) as response:
                if response.status in REDIRECTS and grant is None:
                    url = next_address(url, response.headers.get("Location"), self._settings.name)
                    continue
                check_content(response, self._settings.name)
                if response.status == 401 and "WWW-Authenticate" in response.headers:
                    return response.headers.getall("WWW-Authenticate")
                if response.status in (200, 404):
                    return None
                raise refusal(response, b"", self._settings.name)
        raise Portal(f"{self._settings.name} redirects again and again")

    async def _login(self, challenges: list[str]) -> list[Check]:
        name, configured = f"{self._settings.name} login", self._settings.credentials
        fix = f"set {self._key}.credentials to a user and password that it takes"
        try:
            place = Place(self._origin, self._trial, ours=True)
            grant = await self._authorization.answered(place, parse_challenges(challenges))
            if grant is None:
                return [failed(name, "it wants a login, and none is configured", f"set {self._key}.credentials")]
            if grant.token is None and await self._ping(grant) is not None:  # who gave a token has checked the login
                return [failed(name, f"{self._settings.name} refuses {self._whose(grant)}", fix)]
        except UpstreamError as exc:
            return [failed(name, exc.reason, fix if isinstance(exc, Denied) else self._unreachable_fix(exc))]
        token = f", and got a token for {self._trial}" if grant.token is not None else ""
        taken = ok(name, f"{self._whose(grant)} is let in{token}")
        if configured is not None and grant.login is None:
            taken = warning(name, "the configured credentials hold no login for it: it is used anonymously", fix)
        return [taken, *await self._limit(grant)]

    def _whose(self, grant: Grant) -> str:
        configured = self._settings.credentials
        if grant.login is None or configured is None:
            return "an anonymous caller"
        return f"the user {configured.username}" if configured.username else "the configured login"

    def _unasked(self) -> list[Check]:
        """What to say of credentials that nobody asked for."""
        if self._settings.credentials is None:
            return []
        found = "it lets everybody in without asking for the configured credentials"
        return [warning(f"{self._settings.name} login", found, f"take {self._key}.credentials away")]

    async def _limit(self, grant: Grant | None) -> list[Check]:
        """What is left of a rate limit, where it says. A HEAD does not count as a pull."""
        name = f"{self._settings.name} limit"
        url = URL(f"{self._root}/{self._trial}/manifests/latest", encoded=True)
        headers = {"Accept": _MANIFESTS} | ({} if grant is None else {"Authorization": grant.header})
        fix = f"set {self._key}.credentials: limits of users are higher, and not shared with the neighbours"
        try:
            async with self._transport.send("HEAD", url, headers) as response:
                self._rates.observe(response.headers)
                if response.status == 429:
                    raise RateLimited("429")
        except RateLimited:
            return [warning(name, "it has had too many requests from here", fix)]
        except UpstreamError:
            return []  # it answered a moment ago; that a limit cannot be seen is no trouble
        left, limit = self._rates.remaining, self._rates.limit
        if left is None:
            return []
        what = f"{left} of {limit} pulls left"
        return [warning(name, what, fix) if left <= self._settings.rate_reserve else ok(name, what)]

    def _unreachable_fix(self, exc: UpstreamError) -> str:
        if "certificate" in exc.reason:
            return f"set {self._key}.tls.ca to the PEM file of the authority that signed it, or set this clock"
        if isinstance(exc, Portal):
            return f"set {self._key}.url to the registry itself, or log in to the network's portal first"
        if isinstance(exc, RateLimited):
            return f"set {self._key}.credentials"
        return f"let this machine through to {self._origin}, or set {self._key}.url to where it answers"
