"""One object being written to S3: a single PUT when it is small, else a multipart upload with a few parts in flight.

Every part but the last has the same size (some stores demand it). Bytes that do not fill a part yet, when a writer is
suspended or memory is short, are put into the scratch folder as a *piece*; the next part is streamed from its pieces and
from memory. A multipart upload is noted in the scratch folder before its first part: MinIO does not list them reliably.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from storage.budget import ByteBudget
from storage.errors import NotFound, StorageError, Unavailable, Unsupported
from storage.s3_client import LARGE, S3Client
from storage.s3_xml import completion, parse_fields

if TYPE_CHECKING:
    from storage.driver import Driver

PART: Final = 8 << 20
"""Bytes of a part."""
LATE_PART: Final = 32 << 20
"""Bytes of a part after the first `EARLY_PARTS`: 10,000 parts then hold 289 GiB."""
EARLY_PARTS: Final = 1000

_MOST_PARTS: Final = 10_000
_IN_FLIGHT: Final = 3
_PATIENCE: Final = 2.0
"""Seconds to wait for memory before what is held is spilled, so that slow clients do not keep it from others."""

_TURNS: Final = 4
"""Writers that resume one upload in turn use part numbers of different remainders: one that was given up but still runs
then overwrites no part of those that followed it."""

_Piece = tuple[str, int]


class S3Writer:
    """See storage.driver.Writer for the contract."""

    def __init__(
        self,
        client: S3Client,
        budget: ByteBudget,
        key: str,
        scratch: str,
        state: Mapping[str, Any] | None = None,
        turn: int = 0,
    ) -> None:
        fresh = state is None
        state = state or {}
        self._client = client
        self._budget = budget
        self._key = key
        self._scratch = scratch
        self._upload: str | None = state.get("upload")
        self._note: str | None = state.get("note")
        self._parts: list[tuple[int, str, int]] = [(n, etag, size) for n, etag, size in state.get("parts", [])]
        self._pieces: list[_Piece] = [(name, size) for name, size in state.get("pieces", [])]
        self._stale: list[str] = list(state.get("stale", []))
        self._spent: list[str] = []
        self._keep()
        self._begun = len(self._parts)
        self._step = 1 if fresh else _TURNS
        last = max((number for number, _, _ in self._parts), default=0)
        self._next = last + 1 if fresh else last + 1 + (turn - last - 1) % _TURNS
        self._held: list[bytes] = []
        self._held_size = 0
        self._running: set[asyncio.Task[None]] = set()
        self._committed = False
        self.size = int(state.get("size", 0))

    async def write(self, chunk: bytes) -> None:
        while chunk:
            room = self._part_size() - self._waiting_size()
            head, chunk = (chunk, b"") if len(chunk) <= room else (chunk[:room], chunk[room:])
            if not self._budget.take(len(head)):
                await self._wait_for_memory(len(head))
            self._held.append(head)
            self._held_size += len(head)
            self.size += len(head)
            if len(head) == room:
                await self._start_part()

    async def suspend(self) -> dict[str, Any]:
        await self._settle(0)
        if self._held_size:
            await self._spill()
        await self._forget(self._stale)
        self._keep()
        return {
            "upload": self._upload,
            "note": self._note,
            "parts": sorted(self._parts),
            "pieces": self._pieces,
            "stale": self._spent,
            "size": self.size,
        }

    async def commit(self) -> None:
        if self._committed:
            return
        try:
            await self._publish()
        except NotFound:  # published before, and the answer was lost: what it was made of is gone
            await self._stop_parts()
            answer = await self._client.call("HEAD", self._key)
            if int(answer.headers.get("Content-Length", -1)) != self.size:
                raise
        self._committed = True
        await self._forget(self._scratched())
        self._pieces, self._stale, self._spent, self._note = [], [], [], None

    async def abort(self) -> None:
        await self._stop_parts()
        self._budget.give(self._held_size)
        self._held, self._held_size = [], 0
        with suppress(StorageError):
            if self._upload is not None and self._upload != self._kept_upload:
                await _abort_upload(self._client, self._key, self._upload)
            await self._forget([name for name in self._scratched() if name not in self._kept])

    async def copy_from(self, origin: Mapping[str, str], size: int, part: int) -> None:
        """Copies an object of `size` bytes in parts of `part` inside the store (UploadPartCopy), and commits."""
        await self._begin()
        try:
            for number, at in enumerate(range(0, size, part), start=1):
                headers = {**origin, "x-amz-copy-source-range": f"bytes={at}-{min(at + part, size) - 1}"}
                query = {"partNumber": str(number), "uploadId": self._upload or ""}
                answer = await self._client.call("PUT", self._key, query, headers=headers, within=LARGE)
                self._parts.append((number, parse_fields(answer.body)["ETag"], min(part, size - at)))
            self.size = size
            await self.commit()
        except BaseException:
            await self.abort()
            raise

    def _keep(self) -> None:
        """What is there now was made durable by a suspend, and stays after an abort, until `discard`."""
        self._kept = frozenset(self._scratched())
        self._kept_upload = self._upload

    def _scratched(self) -> list[str]:
        """The keys below the scratch prefix."""
        names = [*self._stale, *self._spent, *(name for name, _ in self._pieces)]
        return names if self._note is None else [*names, self._note]

    def _part_size(self) -> int:
        return PART if self._begun < EARLY_PARTS else LATE_PART

    def _waiting_size(self) -> int:
        return self._held_size + sum(size for _, size in self._pieces)

    def _take_held(self) -> list[bytes]:
        held, self._held, self._held_size = self._held, [], 0
        return held

    async def _wait_for_memory(self, size: int) -> None:
        if self._held:
            try:
                async with asyncio.timeout(_PATIENCE):
                    return await self._budget.wait(size)
            except TimeoutError:
                await self._spill()
        await self._budget.wait(size)
        return None

    async def _spill(self) -> None:
        piece = f"{self._scratch}piece-{self.size:015d}-{secrets.token_hex(8)}"
        size = self._held_size
        await self._put(piece, [], self._take_held())
        self._pieces.append((piece, size))

    async def _start_part(self) -> None:
        if self._upload is None:
            await self._begin()
        if self._next > _MOST_PARTS:
            raise Unsupported("the object would have more than 10,000 parts")
        await self._settle(_IN_FLIGHT - 1)
        pieces, self._pieces = self._pieces, []
        self._spent += [name for name, _ in pieces]
        size = self._held_size
        task = asyncio.create_task(self._send_part(self._next, pieces, self._take_held()))
        task.add_done_callback(lambda _: self._budget.give(size))  # even when it is cancelled before it begins
        self._next += self._step
        self._begun += 1
        self._running.add(task)

    async def _begin(self) -> None:
        answer = await self._client.call("POST", self._key, {"uploads": ""})
        self._upload = parse_fields(answer.body).get("UploadId", "")
        if not self._upload:
            raise Unavailable("the store began no multipart upload")
        self._note = f"{self._scratch}multipart-{secrets.token_hex(8)}"
        note = json.dumps({"key": self._key, "upload": self._upload}).encode()
        await self._client.call("PUT", self._note, body=note, length=len(note))

    async def _send_part(self, number: int, pieces: list[_Piece], held: list[bytes]) -> None:
        query = {"partNumber": str(number), "uploadId": self._upload or ""}
        total = sum(map(len, held)) + sum(length for _, length in pieces)
        try:
            answer = await self._client.call(
                "PUT", self._key, query, body=lambda: self._body(pieces, held), length=total, within=LARGE
            )
        finally:
            held.clear()
        self._parts.append((number, answer.headers["ETag"], total))

    async def _put(self, key: str, pieces: list[_Piece], held: list[bytes]) -> None:
        size = sum(map(len, held))
        total = size + sum(length for _, length in pieces)
        body = b"".join(held) if not pieces and len(held) < 2 else lambda: self._body(pieces, held)
        try:
            await self._client.call("PUT", key, body=body, length=total, within=LARGE)
        finally:
            held.clear()
            self._budget.give(size)

    async def _body(self, pieces: list[_Piece], held: list[bytes]) -> AsyncIterator[bytes]:
        for name, _ in pieces:
            async with self._client.stream(name, {}) as response:
                async for chunk in response.content.iter_any():
                    yield chunk
        for chunk in held:
            yield chunk

    async def _settle(self, most: int) -> None:
        """Waits until at most `most` parts are in flight; raises what one of them raised."""
        while len(self._running) > most:
            done, self._running = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            failures = [task.exception() for task in done]  # every one is looked at, or asyncio complains of the others
            for failure in failures:
                if failure is not None:
                    raise failure

    async def _stop_parts(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running.clear()

    async def _publish(self) -> None:
        if self._upload is None:
            await self._put(self._key, self._pieces, self._take_held())
            return
        if self._waiting_size():
            await self._start_part()
        await self._settle(0)
        body = completion(sorted(self._parts))
        query = {"uploadId": self._upload}
        await self._client.call("POST", self._key, query, body=body, length=len(body), within=LARGE)

    async def _forget(self, keys: Sequence[str]) -> None:
        for key in keys:
            with suppress(NotFound):
                await self._client.call("DELETE", key)


async def discard(client: S3Client, driver: "Driver", scratch: str) -> None:
    """Ends every multipart upload noted below `scratch`, then removes all keys there."""
    while True:
        page = await driver.list(scratch)
        for entry in page.entries:
            if entry.key.startswith(f"{scratch}multipart-"):
                with suppress(NotFound):
                    note = json.loads((await driver.get(entry.key)).data)
                    await _abort_upload(client, note["key"], note["upload"])
        await driver.delete_many([entry.key for entry in page.entries])
        if not page.more:
            return


async def _abort_upload(client: S3Client, key: str, upload: str) -> None:
    with suppress(NotFound):
        await client.call("DELETE", key, {"uploadId": upload})
