"""A door into a registry that runs: its API, spoken as clients speak it."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from app.doctor.image import MANIFEST
from app.doctor.round_trip import Refused
from app.oci.digests import Digest
from app.oci.names import Name

_PATIENCE: Final = aiohttp.ClientTimeout(total=15, sock_connect=5)
_LIMIT: Final = 4 << 20
_GONE: Final = frozenset({404, 405})


@dataclass(frozen=True, slots=True)
class Login:
    """A user of the registry."""

    user: str
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        """As it is sent."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class OverHttp:
    """See app.doctor.round_trip.Door."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, login: Login | None, tls: ssl.SSLContext, name: str | None
    ) -> None:
        self.place = url
        self._name = name
        self._session = session
        self._url = url.rstrip("/")
        self._login = login
        self._tls = tls

    async def ping(self) -> bool:
        """Whether the registry lets this caller in; False where it wants a login, or another one. Raises Refused."""
        answer = await self._ask("GET", "/v2/")
        if answer.status not in (200, 401):
            raise self._unwelcome(answer, "GET /v2/")
        return answer.status == 200

    async def push_blob(self, name: Name, digest: Digest, data: bytes) -> None:
        begun = await self._expect(202, "POST", f"/v2/{name}/blobs/uploads/")
        place = begun.headers.get("Location", "")
        query = f"{'&' if '?' in place else '?'}digest={digest}"
        headers = {"Content-Type": "application/octet-stream"}
        await self._expect(201, "PUT", f"{place}{query}", data, headers)

    async def push_manifest(self, name: Name, tag: str, data: bytes) -> None:
        await self._expect(201, "PUT", f"/v2/{name}/manifests/{tag}", data, {"Content-Type": MANIFEST})

    async def pull_manifest(self, name: Name, tag: str) -> bytes:
        return (await self._expect(200, "GET", f"/v2/{name}/manifests/{tag}", None, {"Accept": MANIFEST})).body

    async def pull_blob(self, name: Name, digest: Digest) -> bytes:
        path = f"/v2/{name}/blobs/{digest}"
        answer = await self._ask("GET", path)
        if answer.status in (302, 307):  # to the store; the login stays here
            answer = await self._ask("GET", answer.headers.get("Location", ""), anonymous=True)
        if answer.status != 200:
            raise self._unwelcome(answer, f"GET {path}")
        return answer.body

    async def delete_manifest(self, name: Name, digest: Digest) -> bool:
        return await self._deleted(f"/v2/{name}/manifests/{digest}")

    async def delete_blob(self, name: Name, digest: Digest) -> bool:
        return await self._deleted(f"/v2/{name}/blobs/{digest}")

    async def text(self, path: str) -> str | None:
        """A page as text, None where there is none. Raises Refused."""
        answer = await self._ask("GET", path)
        return answer.body.decode(errors="replace") if answer.status == 200 else None

    async def _deleted(self, path: str) -> bool:
        answer = await self._ask("DELETE", path)
        if answer.status not in (202, *_GONE):
            raise self._unwelcome(answer, f"DELETE {path}")
        return answer.status == 202

    async def _expect(
        self,
        status: int,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _Answer:
        answer = await self._ask(method, path, body, headers)
        if answer.status != status:
            raise self._unwelcome(answer, f"{method} {path.partition('?')[0]}")
        return answer

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        anonymous: bool = False,
    ) -> _Answer:
        url = URL(self._url).join(URL(path, encoded=True))
        own = url.origin() == URL(self._url).origin()
        login = {"Authorization": self._login.header} if self._login and own and not anonymous else {}
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                headers={**login, **(headers or {})},
                ssl=self._tls,
                server_hostname=self._name if own and url.scheme == "https" else None,
                allow_redirects=False,
            ) as response:
                data = await response.content.read(-1) if (response.content_length or 0) <= _LIMIT else b""
                return _Answer(response.status, response.headers, data)
        except aiohttp.ClientConnectorCertificateError as exc:
            raise Refused(_distrust(exc), self._trust()) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
            what = "did not answer in time" if isinstance(exc, TimeoutError) else f"cannot be reached: {_reason(exc)}"
            raise Refused(
                f"{url.host}:{url.port} {what}", "edge-registry doctor --url URL, with where the registry listens"
            ) from None

    def _trust(self) -> str:
        return "edge-registry doctor --ca FILE, with the authority that signed it"

    def _unwelcome(self, answer: _Answer, asked: str) -> Refused:
        who = f"the user {self._login.user}" if self._login else "a caller without login"
        if answer.status == 401 and self._login:
            fix = f"edge-registry user add {self._login.user}, and the password that you give it there"
            return Refused(f"the registry refuses the password of {self._login.user}", fix)
        if answer.status == 401:
            return Refused(f"{asked} wants a login", "edge-registry doctor --user NAME --password-stdin")
        if answer.status == 403:
            user = self._login.user if self._login else "NAME"
            rule = f"{{users: [{user}], repositories: [doctor/*], actions: [push, delete]}}"
            return Refused(f"{who} may not: {asked} was answered 403 {_code(answer)}", f"add to auth.rules: {rule}")
        if answer.status == 405:
            return Refused(
                "it takes no pushes here", "edge-registry doctor --url URL, with a listener that is not read_only"
            )
        if answer.status in (502, 503, 504):
            return Refused(
                f"{asked} was answered {answer.status}: {_code(answer)}", "edge-registry doctor --only store"
            )
        found = f"{asked} was answered {answer.status} {_code(answer)}".rstrip()
        return Refused(found, "edge-registry doctor --url URL, with the address of an edge registry")


@asynccontextmanager
async def open_http(
    url: str, login: Login | None, ca: str | None, *, name: str | None = None
) -> AsyncIterator[OverHttp]:
    """The door to the registry at a URL; `ca` is PEM that is trusted besides the system's authorities.

    `name` is what its certificate must be for, where that is not the host of the URL.
    """
    tls = await asyncio.to_thread(ssl.create_default_context)
    if ca is not None:
        tls.load_verify_locations(cadata=ca)
    async with aiohttp.ClientSession(timeout=_PATIENCE, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield OverHttp(session, url, login, tls, name)


def is_url(text: str) -> bool:
    """Whether it may be the URL of a registry."""
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username and not parts.query


def _code(answer: _Answer) -> str:
    try:
        error = json.loads(answer.body)["errors"][0]
        return f"{error['code']}: {error['message']}"[:200]
    except (ValueError, KeyError, TypeError, IndexError):
        return ""


def _distrust(exc: aiohttp.ClientConnectorCertificateError) -> str:
    inner = exc.certificate_error
    why = inner.verify_message if isinstance(inner, ssl.SSLCertVerificationError) else type(inner).__name__
    return f"its certificate is not trusted from here: {why}"


def _reason(exc: BaseException) -> str:
    inner = exc.os_error if isinstance(exc, aiohttp.ClientConnectorError) else exc
    return (inner.strerror if isinstance(inner, OSError) else None) or type(inner).__name__
