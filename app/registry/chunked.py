"""Chunked uploads: several PATCHes continue one object; what one replica must tell the next lies in `uploads/<id>/state`.

The state is one object, written whole after each chunk and only over the version that was read, where the store can do
that; where it cannot, the exact list of parts makes a lost race fail at the end instead of corrupting silently.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

from app.oci.digests import Digest, algorithm_of
from app.oci.errors import BlobUploadUnknown, DigestInvalid, RangeInvalid
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.hashing import StreamHash
from app.registry.keys import Copy
from app.registry.sessions import Session
from storage import Absent, Condition, ConditionFailed, NotFound, Version, Writer


class Chunked:
    """The remembered part of one upload."""

    def __init__(self, bucket: Bucket, session: Session) -> None:
        self._bucket = bucket
        self._session = session
        self._scratch = keys.upload(session.id)

    async def status(self) -> Session:
        """The session with the acknowledged offset. Raises BlobUploadUnknown.

        An older Location may not know yet that the upload is chunked: the answer with the next one was lost.
        """
        try:
            state, _ = await self._load()
        except BlobUploadUnknown:
            if self._session.chunked:
                raise
            return self._session
        if "done" in state:
            raise BlobUploadUnknown("the upload is finished")
        return self._session.at(int(state["writer"]["size"])) if state["writer"] else self._session

    async def append(self, already: Copy | None, body: AsyncIterator[bytes], at: int | None) -> Session:
        """Takes the chunk that begins at `at`, or wherever the upload stands; what `already` holds comes before it."""
        writer, running, state, version = await self._continue(at)
        try:
            if already is not None:
                await self._absorb(already, writer, running)
            await pump(body, writer, running)
            size = writer.size
            state = {**state, "writer": await writer.suspend()}
        except NotFound as exc:
            await asyncio.shield(writer.abort())
            raise BlobUploadUnknown() from exc
        except BaseException:
            await asyncio.shield(writer.abort())
            raise
        await self._save(state, Version(version))
        if running is not None:
            await running.digest()
            self._bucket.hashes.keep(self._session.id, running)
        return self._session.at(size)

    async def commit(self, digest: Digest, body: AsyncIterator[bytes], at: int | None) -> tuple[Copy, bool]:
        """Takes the last bytes and publishes the object under its still unlinked name; says whether its hash is known.

        Raises DigestInvalid, and then nothing is left.
        """
        writer, running, state, _ = await self._continue(at)
        try:
            await pump(body, writer, running)
            known = running is not None and running.algorithm == algorithm_of(digest)
            if running is not None and known and await running.digest() != digest:
                raise DigestInvalid(detail={"digest": digest})
            await writer.commit()
        except NotFound as exc:
            await asyncio.shield(writer.abort())
            raise BlobUploadUnknown() from exc
        except DigestInvalid:
            await asyncio.shield(writer.abort())
            await self.drop()
            raise
        except BaseException:
            await asyncio.shield(writer.abort())
            raise
        return Copy(state["uuid"], writer.size), known

    async def drop(self) -> None:
        """Removes all that is remembered: the upload is unknown from then on."""
        await self._bucket.driver.discard(self._scratch)

    async def finished(self, digest: Digest) -> Copy | None:
        """The object of an upload that was finished before: a repeated PUT gets its 201 again."""
        state, _ = await self._load()
        if "done" not in state:
            return None
        if state["done"] != digest:
            raise DigestInvalid(detail={"digest": digest})
        return Copy(state["uuid"], int(state["size"]))

    async def note_finished(self, digest: Digest, copy: Copy) -> None:
        """Remembers the outcome until the upload's life ends."""
        await self._save({"uuid": copy.uuid, "size": copy.size, "done": digest}, None)

    async def _continue(self, at: int | None) -> tuple[Writer, StreamHash | None, dict[str, Any], str]:
        """The writer and the hash to go on with. It is this request's turn before its first byte is written."""
        session = self._session
        if not session.chunked:
            with suppress(RangeInvalid):  # a first chunk that was broken off left the state behind
                await self._save({"uuid": keys.fresh(), "writer": None, "turn": 0}, Absent())
        state, version = await self._load()
        if "done" in state:
            raise BlobUploadUnknown("the upload is finished")
        offset = int(state["writer"]["size"]) if state["writer"] else session.offset
        if at is not None and at != offset:
            raise RangeInvalid(detail={"offset": offset})
        state, version = await self._take_turn(state, version)
        if state["writer"] is None:
            writer = self._bucket.driver.create(keys.data(state["uuid"]), self._scratch)
            return writer, StreamHash(session.algorithm), state, version
        running = self._bucket.hashes.take(session.id, offset)
        writer = self._bucket.driver.resume(
            keys.data(state["uuid"]), self._scratch, state["writer"], turn=state["turn"]
        )
        return writer, running, state, version

    async def _take_turn(self, state: dict[str, Any], version: str) -> tuple[dict[str, Any], str]:
        """Says in the store that this request goes on now: an earlier one that still runs can save nothing any more."""
        mine = {**state, "turn": state["turn"] + 1, "by": keys.fresh()}
        if mine["writer"] is None:
            mine["uuid"] = keys.fresh()
        await self._save(mine, Version(version))
        found, version = await self._load()
        if found.get("by") != mine["by"]:
            raise RangeInvalid("another request continued this upload")
        return mine, version

    async def _absorb(self, already: Copy, writer: Writer, running: StreamHash | None) -> None:
        async with self._bucket.driver.open(keys.data(already.uuid)) as reader:
            await pump(aiter(reader), writer, running)

    async def _load(self) -> tuple[dict[str, Any], str]:
        try:
            found = await self._bucket.driver.get(keys.upload_state(self._session.id))
        except NotFound as exc:
            raise BlobUploadUnknown() from exc
        return json.loads(found.data), found.version

    async def _save(self, state: Mapping[str, Any], condition: Condition | None) -> None:
        key = keys.upload_state(self._session.id)
        if not self._bucket.capabilities.conditional_put:
            condition = None
        try:
            await self._bucket.driver.put(key, json.dumps(state).encode(), condition=condition)
        except ConditionFailed as exc:
            raise RangeInvalid("another request continued this upload") from exc


async def pump(body: AsyncIterator[bytes], writer: Writer, running: StreamHash | None) -> None:
    """Hashes and writes a body chunk by chunk."""
    async for chunk in body:
        if running is not None:
            await running.update(chunk)
        await writer.write(chunk)
