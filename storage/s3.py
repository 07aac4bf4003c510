"""The S3 driver: one bucket on MinIO or another S3 store."""

import hashlib
import secrets
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final

import aiohttp

from storage.budget import ByteBudget
from storage.driver import PAGE, Absent, Capabilities, Condition, Entry, Fence, Object, Page, Reader, Version, Writer
from storage.errors import ConditionFailed, Corrupt, NoStore, NotFound, OutcomeUnknown, Unavailable
from storage.keys import check_key, check_prefix, check_scratch
from storage.s3_client import LARGE, S3Client
from storage.s3_listing import list_page
from storage.s3_probe import probe
from storage.s3_writer import S3Writer, discard
from storage.s3_xml import deletion
from storage.settings import S3Settings

FENCE_SECONDS: Final = 900.0
"""How long a signature lives: stores refuse older ones whatever the URL says."""

_COPY_PART: Final = 1 << 30
_COPY_WHOLE: Final = 5 << 30
_RESUMES: Final = 5


class S3Driver:
    """See storage.driver.Driver for the contract."""

    name = "s3"

    def __init__(self, settings: S3Settings, *, fence_lifetime: float = FENCE_SECONDS) -> None:
        self._settings = settings
        self._client = S3Client(settings)
        self._public = S3Client(settings, settings.public_endpoint) if settings.public_endpoint else self._client
        self._budget = ByteBudget(settings.buffer_bytes)
        self._fence_lifetime = fence_lifetime

    async def start(self) -> None:
        await self._client.start()
        try:
            await self._client.call("HEAD")
        except NoStore:
            if not self._settings.create_bucket:
                bucket = self._settings.bucket
                hint = "run `edge-registry setup bucket`, or set storage.s3.create_bucket"
                raise NoStore(f"there is no bucket {bucket!r}: {hint}") from None
            await self._create_bucket()

    async def close(self) -> None:
        await self._client.close()

    async def probe(self) -> Capabilities:
        return await probe(self, await self._skew())

    async def ready(self) -> None:
        await self._client.call("HEAD", within=3.0)

    async def get(self, key: str) -> Object:
        answer = await self._client.call("GET", check_key(key))
        return Object(answer.body, _modified(answer.headers), answer.headers.get("ETag", ""))

    async def stat(self, key: str) -> Entry:
        answer = await self._client.call("HEAD", check_key(key))
        headers = answer.headers
        return Entry(key, int(headers.get("Content-Length", 0)), _modified(headers), headers.get("ETag", ""))

    @asynccontextmanager
    async def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[Reader]:
        if start == end or (end is None and start > 0 and start >= (await self.stat(key)).size):
            yield _Empty((await self.stat(key)).size)
            return
        async with self._client.stream(check_key(key), _range(start, end)) as response:
            yield _S3Reader(self._client, key, start, end, response)

    async def put(
        self, key: str, data: bytes, *, condition: Condition | None = None, fence: Fence | None = None
    ) -> None:
        headers = _condition(condition)
        try:
            await self._client.call("PUT", check_key(key), headers=headers, body=data, length=len(data), fence=fence)
        except OutcomeUnknown as exc:
            if isinstance(exc.__cause__, ConditionFailed) and (await self.get(key)).data == data:
                return  # our own earlier attempt is what is in the way
            raise

    async def delete(self, key: str, *, fence: Fence | None = None) -> None:
        try:
            await self._client.call("DELETE", check_key(key), fence=fence)
        except NotFound:
            return

    async def delete_many(self, keys: Sequence[str], *, fence: Fence | None = None) -> None:
        for at in range(0, len(keys), PAGE):
            body = deletion([check_key(key) for key in keys[at : at + PAGE]])
            md5 = b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
            headers = {"content-md5": md5, "content-type": "application/xml"}
            await self._client.call(
                "POST", query={"delete": ""}, headers=headers, body=body, length=len(body), fence=fence, within=LARGE
            )

    async def list(self, prefix: str, *, after: str = "", limit: int = PAGE) -> Page:
        return await list_page(self._client, check_prefix(prefix), after, min(limit, PAGE))

    async def copy(self, source: str, target: str) -> None:
        size = (await self.stat(source)).size
        origin = {"x-amz-copy-source": self._client.source(check_key(source))}
        if size < _COPY_WHOLE:
            await self._client.call("PUT", check_key(target), headers=origin, within=LARGE)
            return
        writer = S3Writer(self._client, self._budget, check_key(target), f"uploads/copy-{secrets.token_hex(8)}/")
        await writer.copy_from(origin, size, _COPY_PART)

    def fence(self) -> Fence:
        return Fence(time.time(), self._fence_lifetime)

    def create(self, key: str, scratch: str) -> Writer:
        return S3Writer(self._client, self._budget, check_key(key), check_scratch(scratch))

    def resume(self, key: str, scratch: str, state: Mapping[str, Any], *, turn: int = 0) -> Writer:
        return S3Writer(self._client, self._budget, check_key(key), check_scratch(scratch), state, turn)

    async def discard(self, scratch: str) -> None:
        await discard(self._client, self, check_scratch(scratch))

    async def presign(self, key: str, *, lifetime: float, filename: str | None = None) -> str | None:
        query = {"response-content-disposition": f'attachment; filename="{filename}"'} if filename else {}
        return await self._public.presign(check_key(key), query, max(1, round(lifetime)))

    async def _create_bucket(self) -> None:
        region = self._settings.region
        body = b""
        if region != "us-east-1":
            constraint = f"<LocationConstraint>{region}</LocationConstraint>"
            body = f"<CreateBucketConfiguration>{constraint}</CreateBucketConfiguration>".encode()
        try:
            await self._client.call("PUT", body=body, length=len(body))
        except ConditionFailed:
            return  # another replica made it

    async def _skew(self) -> float:
        before = time.time()
        answer = await self._client.call("HEAD")
        told = answer.headers.get("Date")
        return (before + time.time()) / 2 - parsedate_to_datetime(told).timestamp() if told else 0.0


class _Empty:
    """A range of no bytes."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        return
        yield b""


class _S3Reader:
    """A GET's body. When the store breaks off it is continued with Range, only while the object is the same."""

    def __init__(
        self, client: S3Client, key: str, start: int, end: int | None, response: aiohttp.ClientResponse
    ) -> None:
        self._client = client
        self._key = key
        self._response = response
        self._etag = response.headers.get("ETag", "")
        ranged = response.headers.get("Content-Range")
        length = int(response.headers["Content-Length"])
        self.size = int(ranged.rpartition("/")[2]) if ranged else length
        self._at = start if ranged else 0
        self._end = self.size if end is None else min(end, self.size)
        if self._end - self._at != length or (start and not ranged):
            raise Corrupt("the store sent another range than it was asked for")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks(self._response):
            yield chunk
        for _ in range(_RESUMES):
            if self._at == self._end:
                return
            headers = {**_range(self._at, self._end), "if-match": self._etag}
            try:
                async with self._client.stream(self._key, headers) as response:
                    async for chunk in self._chunks(response):
                        yield chunk
            except (NotFound, ConditionFailed) as exc:
                raise Corrupt("the object changed while it was read") from exc
        if self._at != self._end:
            raise Unavailable("the store broke off")

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """What comes before the end or a break: the count in `_at` tells which of the two it was."""
        content = response.content
        try:
            while chunk := (await content.readchunk())[0]:  # `iter_any` would join what waits: one more copy
                self._at += len(chunk)
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError):
            return


def _range(start: int, end: int | None) -> dict[str, str]:
    if start == 0 and end is None:
        return {}
    return {"range": f"bytes={start}-{'' if end is None else end - 1}"}


def _condition(condition: Condition | None) -> dict[str, str]:
    match condition:
        case Absent():
            return {"if-none-match": "*"}
        case Version(version):
            return {"if-match": version}
        case None:
            return {}


def _modified(headers: Mapping[str, str]) -> float:
    return _seconds(headers.get("Last-Modified", ""))


@lru_cache(maxsize=4096)
def _seconds(told: str) -> float:
    """Remembered, because parsing costs as much as signing and hot keys say the same each time."""
    return parsedate_to_datetime(told).timestamp() if told else 0.0
