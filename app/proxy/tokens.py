"""Bearer tokens: fetched once however many need one, kept until shortly before they end."""

import base64
import json
import re
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import ClientResponse
from yarl import URL

from app.proxy.answers import check_content, refusal, retry_after
from app.proxy.credentials.login import IDENTITY_TOKEN, Credentials, Login
from app.proxy.errors import Denied, Failing, Portal, UpstreamError
from app.proxy.flights import Flights
from app.proxy.transport import Transport
from app.registry.bucket import Recent

_LIMIT: Final = 1 << 20
"""Bytes of a token service's answer."""
_TOKENS: Final = 2048
_UNSAID: Final = 60.0
"""Seconds that a token lives which does not say: the specification's."""
_USED: Final = 0.9
_LEAST: Final = 5.0
"""Seconds for which any token is used: a service that says 0 would be asked for every request."""
_MOST: Final = 86400.0
_NO_POST: Final = frozenset({400, 401, 404, 405})
"""Answers to a POST after which containerd asks with GET."""
_ANGER: Final = 10.0
"""Seconds for which a login that was refused is not sent again: a service may lock out who repeats it."""
_TOKEN: Final = re.compile(r"[!-~]{1,65536}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a token is for: the key under which it is kept, with the identity of the credentials."""

    realm: URL
    service: str
    scope: str
    identity: str


@dataclass(frozen=True, slots=True)
class Token:
    """A token; `login` is whose it is, None for nobody's. `until` is monotonic."""

    value: str = field(repr=False)
    until: float
    login: Login | None


class Refusals:
    """Logins that were refused a moment ago, each by the place that refused it."""

    def __init__(self) -> None:
        self._refused: Recent[Hashable, tuple[Login | None, float]] = Recent(_TOKENS)

    def note(self, place: Hashable, login: Login | None) -> None:
        """`place` refused this login."""
        self._refused.put(place, (login, time.monotonic()))

    def check(self, place: Hashable, login: Login | None, name: str) -> None:
        """Raises Denied where sending it would do no good; `name` is the upstream's."""
        refused = self._refused.get(place)
        if refused is not None and refused[0] == login and time.monotonic() < refused[1] + _ANGER:
            raise Denied(f"{name} has just refused this login")


class Tokens:
    """The tokens of one upstream."""

    def __init__(self, transport: Transport, name: str) -> None:
        """`name` is the upstream's, for reasons."""
        self._transport = transport
        self._name = name
        self._kept: Recent[Asked, Token] = Recent(_TOKENS)
        self._flights: Flights[tuple[Asked, bool], Token] = Flights()
        self._refusals = Refusals()

    async def close(self) -> None:
        """Ends requests for tokens."""
        await self._flights.close()

    def kept(self, asked: Asked) -> Token | None:
        """The token that is here and still good."""
        token = self._kept.get(asked)
        return token if token is not None and time.monotonic() < token.until else None

    async def fetch(self, asked: Asked, credentials: Credentials, host: str, *, refused: Token | None = None) -> Token:
        """A token for `asked`, of the login to `host`: the one that is here, or a new one.

        `refused` was given before and the registry did not take it: then the login is renewed as well, unless somebody
        else has already fetched another token. Raises UpstreamError.
        """
        token = self.kept(asked)
        if token is not None and (refused is None or token.value != refused.value):
            return token
        renew = refused is not None

        async def work() -> Token:
            new = await self._new(asked, credentials, host, renew=renew)
            self._kept.put(asked, new)
            return new

        return await self._flights.join((asked, renew), work)

    async def _new(self, asked: Asked, credentials: Credentials, host: str, *, renew: bool) -> Token:
        login = await credentials.login(host, renew=renew)
        self._refusals.check(asked, login, self._name)
        try:
            return await self._exchange(asked, login)
        except Denied:
            again = login if renew or login is None else await credentials.login(host, renew=True)
            if again == login:
                self._refusals.note(asked, login)
                raise
        return await self._exchange(asked, again)

    async def _exchange(self, asked: Asked, login: Login | None) -> Token:
        begun = time.monotonic()
        if login is not None and login.username == IDENTITY_TOKEN:
            answer = await self._post(asked, login.password)
            if answer is None:
                answer = await self._get(asked, Login("", login.password))
        else:
            answer = await self._get(asked, login)
        value, life = _parsed(answer, self._name)
        return Token(value, begun + life, login)

    async def _get(self, asked: Asked, login: Login | None) -> bytes:
        query = {"service": asked.service, "scope": asked.scope}
        url = asked.realm.update_query({name: text for name, text in query.items() if text})
        headers = {} if login is None else {"Authorization": basic(login)}
        async with self._transport.send("GET", url, headers) as response:
            return await self._answer(response)

    async def _post(self, asked: Asked, refresh_token: str) -> bytes | None:
        """The answer to a refresh token; None where the service may know GET only."""
        form = {
            "grant_type": "refresh_token",
            "service": asked.service,
            "client_id": "edge-registry",
            "scope": asked.scope,
            "refresh_token": refresh_token,
        }
        async with self._transport.send("POST", asked.realm, {}, form=form) as response:
            if response.status in _NO_POST:
                await self._transport.drain(response)
                return None
            return await self._answer(response)

    async def _answer(self, response: ClientResponse) -> bytes:
        if response.status == 200:
            check_content(response, self._name)
            body = await self._transport.read(response, _LIMIT)
            if body is None:
                raise Portal(f"the token service of {self._name} answered more than {_LIMIT} bytes")
            return body
        await self._transport.drain(response)
        raise _refused(response, self._name)


def basic(login: Login) -> str:
    """The Authorization header of a user and a password. Raises Denied for a user that Basic cannot carry."""
    if ":" in login.username:
        raise Denied("the user name of the login holds a colon")
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def _refused(response: ClientResponse, name: str) -> UpstreamError:
    what = f"the token service of {name}"
    if 300 <= response.status < 400:
        return Portal(f"{what} redirects, which is not followed with a login")
    failure = refusal(response, b"", what)
    if 400 <= response.status < 500 and response.status in (404, 410):  # says nothing about the image
        return Failing(f"{what} answered {response.status}", retry_after=retry_after(response.headers))
    return failure


def _parsed(body: bytes, name: str) -> tuple[str, float]:
    """The token, and the seconds for which it is used. Raises Portal."""
    nonsense = Portal(f"the token service of {name} answered no token")
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise nonsense from None
    if not isinstance(content, Mapping):
        raise nonsense
    value = content.get("token") or content.get("access_token")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise nonsense
    return value, _life(content.get("expires_in"))


def _life(said: Any) -> float:
    try:
        seconds = float(said)
    except (TypeError, ValueError):
        seconds = _UNSAID
    if not 0 < seconds < _MOST:  # not NaN either
        seconds = _UNSAID
    return max(seconds * _USED, _LEAST)
