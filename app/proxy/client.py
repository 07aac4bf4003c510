"""The client of one upstream registry: what it has, asked for politely, and what it does wrong, said in our words."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from app.proxy.answers import Reply, check_content, counts, extent, refusal
from app.proxy.authorization import Authorization, Grant, Place
from app.proxy.breaker import Breaker
from app.proxy.challenge import parse_challenges
from app.proxy.credentials.login import Credentials
from app.proxy.errors import Missing, Portal, RateLimited, Unreachable, UpstreamError
from app.proxy.rates import RateLimit
from app.proxy.redirects import MOST, REDIRECTS, next_address, same_origin
from app.proxy.settings import HUB, UpstreamSettings
from app.proxy.stream import Stream
from app.proxy.tokens import Tokens
from app.proxy.transport import Transport, check_encoding

__all__ = ["Reply", "Stream", "UpstreamClient"]

_HUB_DIALLED: Final = "registry-1.docker.io"
_NO_HEAD: Final = 405


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked for: `manifests/...`, `blobs/...` and the like of a repository, or of none."""

    method: str
    repository: str
    tail: str
    headers: Mapping[str, str]
    query: Mapping[str, str] | None = None

    @property
    def of_manifest(self) -> bool:
        return self.tail.startswith("manifests/")

    def __str__(self) -> str:
        return f"{self.repository}/{self.tail}"


class _Refused(Exception):
    """An error together with the status it came with."""

    def __init__(self, failure: UpstreamError, status: int) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.status = status


class UpstreamClient:
    """One upstream. Repositories are named without its path prefix, and without `library/` where that goes unsaid.

    Every request raises Unreachable at once while the breaker is open, RateLimited while a 429 holds, and else what
    the upstream's answer means: Missing, Denied, RateLimited, Unreachable, Failing, Portal. No reason holds a secret.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        credentials: Credentials,
        breaker: Breaker,
        rates: RateLimit,
        report: Callable[[str, str], None],
    ) -> None:
        """`report` takes a level and a line for the operator."""
        self._name = settings.name
        self._breaker = breaker
        self._rates = rates
        self._probe_timeout = 2 * settings.connect_timeout  # to connect, and to answer
        base = URL(settings.url)
        if base.host in HUB:
            base = base.with_host(_HUB_DIALLED)
        self._hub = base.host in HUB or bool({settings.name, *settings.aliases} & HUB)
        path = base.raw_path.strip("/")
        self._origin = base.origin()
        if path == "v2" or path.endswith("/v2"):  # the API's own root
            self._root, self._prefix = f"{self._origin}/{path}", ""
        else:
            self._root, self._prefix = f"{self._origin}/v2", f"{path}/" if path else ""
        self._transport = Transport(settings, self._origin, report)
        self._tokens = Tokens(self._transport, settings.name)
        self._authorization = Authorization(
            credentials, self._tokens, name=settings.name, token_hosts=settings.token_hosts
        )

    async def start(self) -> None:
        """Reads certificates; dials nobody, so that a server starts offline. Raises StartError."""
        await self._transport.start()

    async def close(self) -> None:
        """Ends what runs."""
        await self._tokens.close()
        await self._transport.close()

    def remote(self, repository: str) -> str:
        """The upstream's own name of a repository: with the path prefix, and `library/` for Docker Hub's short names."""
        if self._hub and "/" not in repository:
            repository = f"library/{repository}"
        return f"{self._prefix}{repository}"

    def listed(self, remote: str) -> str | None:
        """The opposite of `remote`, for a name of the upstream's catalog; None for one that is not below the path prefix."""
        return remote.removeprefix(self._prefix) if remote.startswith(self._prefix) else None

    async def head(self, repository: str, tail: str, accept: Sequence[str] = ()) -> Reply:
        """HEAD of `manifests/<tag>` or `blobs/<digest>`: a 200 with whatever headers came, which may be few.

        An upstream that knows no HEAD of manifests is asked with GET: then the body comes too.
        """
        async with self._asked(_Request("HEAD", repository, tail, _accepting(accept))) as response:
            if response.status == 200:
                check_content(response, self._name)
                return Reply(200, response.headers, b"")
            if response.status != _NO_HEAD:
                raise Portal(f"{self._name} answered {response.status} to HEAD")
        return await self.get(repository, tail, accept=accept)

    async def get(
        self,
        repository: str,
        tail: str,
        *,
        accept: Sequence[str] = (),
        limit: int = 4 << 20,
        query: Mapping[str, str] | None = None,
        etag: str | None = None,
    ) -> Reply:
        """GET of something small: a 200 with its body, or a 304 where `etag` still holds. Above `limit` bytes: Portal.

        An empty `repository` means the registry itself, whose `tail` is `_catalog`.
        """
        headers = _accepting(accept) | ({} if etag is None else {"If-None-Match": etag})
        async with self._asked(_Request("GET", repository, tail, headers, query)) as response:
            if response.status == 304 and etag is not None:
                return Reply(304, response.headers, b"")
            if response.status != 200:
                raise Portal(f"{self._name} answered {response.status} to GET")
            check_content(response, self._name)
            body = await self._transport.read(response, limit)
        if body is None:  # what one repository holds says nothing about the health of the upstream
            raise Portal(f"{self._name} answered more than {limit} bytes where that is too much")
        return Reply(200, response.headers, body)

    @asynccontextmanager
    async def stream(self, repository: str, tail: str, *, start: int = 0) -> AsyncIterator[Stream]:
        """A blob from byte `start` on, or from 0 where the upstream ignores ranges: see `Stream.start`.

        What breaks while it is read is not held against the upstream by the breaker: the next request will tell.
        """
        headers = {"Range": f"bytes={start}-"} if start > 0 else {}
        async with self._opened(_Request("GET", repository, tail, headers)) as response:
            try:
                if response.status not in (200, 206):
                    raise Portal(f"{self._name} answered {response.status} to GET of a blob")
                check_content(response, self._name)
                check_encoding(response, self._name)
                stream = Stream(response, extent(response, start, self._name), self._transport, self._name)
            except Portal as failure:
                self._breaker.failed(failure)
                raise
            self._breaker.succeeded()
            yield stream

    async def ping(self) -> None:
        """Asks whether a registry answers: 200, a challenge, 403, 404 or 429 say so. Raises Unreachable, Failing, Portal.

        It is the breaker's probe, and so is neither stopped by it nor counted.
        """
        url = URL(f"{self._root}/", encoded=True)
        try:
            async with asyncio.timeout(self._probe_timeout):
                for _ in range(1 + MOST):
                    async with self._transport.send("GET", url, {}) as response:
                        if response.status not in REDIRECTS:
                            return self._check_alive(response)
                        url = next_address(url, response.headers.get("Location"), self._name)
        except TimeoutError:
            raise Unreachable(f"{self._name} did not answer within {self._probe_timeout:g} s") from None
        raise Portal(f"{self._name} redirects more than {MOST} times")

    def _check_alive(self, response: aiohttp.ClientResponse) -> None:
        """Raises what an answer to a ping says against the health of the upstream."""
        if response.status in (200, 404):
            check_content(response, self._name)
        elif response.status == 401 and "WWW-Authenticate" not in response.headers:
            raise Portal(f"{self._name} answered 401 without saying what it wants")
        else:
            failure = refusal(response, b"", self._name)
            if counts(failure, response.status):
                raise failure

    @asynccontextmanager
    async def _asked(self, request: _Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """`_opened` for an answer that is read inside: what goes wrong there counts as well."""
        async with self._opened(request) as response:
            try:
                yield response
            except UpstreamError as failure:
                self._breaker.failed(failure)
                raise
            self._breaker.succeeded()

    @asynccontextmanager
    async def _opened(self, request: _Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer at the end of all challenges and redirects, which is no refusal; refusals are counted here."""
        self._breaker.admit()
        pull = request.method == "GET" and request.of_manifest
        pause = self._rates.refuses(pull=pull)
        if pause is not None:
            raise RateLimited(f"{self._name} has had too many requests", retry_after=pause)
        async with AsyncExitStack() as stack:
            try:
                response = await self._final(stack, request)
                if request.of_manifest:
                    self._rates.observe(response.headers)
                no_head = request.method == "HEAD" and response.status == _NO_HEAD and request.of_manifest
                if response.status >= 400 and not no_head:
                    raise await self._refused(response)
            except _Refused as refused:
                self._note(refused.failure, counts(refused.failure, refused.status), pull, str(request))
                raise refused.failure from None
            except UpstreamError as failure:
                self._note(failure, True, pull, str(request))
                raise
            yield response

    async def _final(self, stack: AsyncExitStack, request: _Request) -> aiohttp.ClientResponse:
        """The answer behind all redirects, open in `stack`. Raises UpstreamError, _Refused."""
        remote, ours = self.remote(request.repository) if request.repository else "", True
        url = URL("/".join(part for part in (self._root, remote, request.tail) if part), encoded=True)
        if request.query:
            url = url.with_query(request.query)
        for _ in range(1 + MOST):
            response = await self._authorized(stack, request, Place(url.origin(), remote, ours), url)
            if response.status not in REDIRECTS:
                return response
            url = next_address(url, response.headers.get("Location"), self._name)
            ours = ours and same_origin(url, self._origin)  # a host that is not ours does not lead back to our login
            await self._transport.drain(response)
            await stack.aclose()
        raise Portal(f"{self._name} redirects more than {MOST} times")

    async def _authorized(
        self, stack: AsyncExitStack, request: _Request, place: Place, url: URL
    ) -> aiohttp.ClientResponse:
        """The answer of one address, open in `stack`, once what it wants to see was sent and once renewed."""
        grant, renewed = await self._authorization.known(place), False
        while True:
            headers = request.headers if grant is None else {**request.headers, "Authorization": grant.header}
            response = await stack.enter_async_context(self._transport.send(request.method, url, headers))
            if response.status not in (401, 403):
                return response
            challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
            refused = await self._refused(response, grant if place.ours else None)
            await stack.aclose()
            if renewed:
                raise refused
            if grant is None:
                following = await self._authorization.answered(place, challenges)
            else:
                following, renewed = await self._authorization.renewed(place, grant, challenges), True
            if following is None:
                raise refused
            grant = following

    async def _refused(self, response: aiohttp.ClientResponse, grant: Grant | None = None) -> _Refused:
        """What a refusal means. Docker Hub says 401 of a repository that is missing or private, to nobody's token too."""
        failure = refusal(response, await self._transport.drain(response), self._name)
        anonymous = grant is not None and grant.token is not None and grant.login is None
        if self._hub and response.status == 401 and anonymous:
            failure = Missing(f"{self._name} does not have that, or not for everybody")
        return _Refused(failure, response.status)

    def _note(self, failure: UpstreamError, unhealthy: bool, pull: bool, about: str) -> None:
        if isinstance(failure, RateLimited):
            self._rates.limited(failure.retry_after, pull=pull)
        if unhealthy:
            self._breaker.failed(failure, about)
        else:
            self._breaker.succeeded()


def _accepting(accept: Sequence[str]) -> dict[str, str]:
    return {"Accept": ", ".join(accept)} if accept else {}
