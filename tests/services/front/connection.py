"""One client's connection: requests are answered by the front, or by the registry behind it."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from typing import Final

from tests.services.front import tokens
from tests.services.front.answers import ELSEWHERE, Reply, error
from tests.services.front.faults import Fault
from tests.services.front.records import Request
from tests.services.front.scene import Scene, basic
from tests.services.front.sending import Ended, Line
from tests.services.front.target import Link
from tests.services.front.wire import BrokenOff, Head, read_body, read_head, reset

_CONTENT: Final = re.compile(r"/v2/(?P<repository>.+)/(?:manifests|blobs|tags|referrers)/.+")
_NO_BODY: Final = (204, 304)


class Connection:
    """Serves one client until one of the two has enough. `elsewhere`: it came to the second port."""

    def __init__(
        self, scene: Scene, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, elsewhere: bool
    ) -> None:
        self._scene, self._elsewhere = scene, elsewhere
        self._line = Line(reader, writer, scene.gate, scene.rate)
        self._client_port: int = writer.get_extra_info("peername")[1]
        self._port: int = writer.get_extra_info("sockname")[1]
        self._link = Link(scene)

    async def run(self) -> None:
        """Returns when the connection is closed."""
        try:
            while (head := await read_head(self._line.reader)) is not None:
                if not await self._exchange(head):
                    break
        except (ConnectionError, TimeoutError):
            pass
        finally:
            self._link.close()
            await self._close()

    def abort(self) -> None:
        """Ends it at once, with RST."""
        reset(self._line.writer)

    async def _close(self) -> None:
        writer = self._line.writer
        writer.close()
        try:
            async with asyncio.timeout(1):
                await writer.wait_closed()
        except (OSError, TimeoutError):  # a TLS peer need not say goodbye
            writer.transport.abort()

    async def _exchange(self, head: Head) -> bool:
        """One request; whether another one may follow."""
        method, target, _ = head.line.split(" ", 2)
        path, _, query = target.partition("?")
        headers = {name.lower(): value for name, value in head.headers}
        request = Request(method, path, query, headers, self._client_port, self._port)
        self._scene.records.begin(request)
        try:
            keep = await self._answer(head, request)
            request.whole = True
        finally:
            request.ended = time.monotonic()
            self._scene.records.changed()
        return keep and head.keeps

    async def _answer(self, head: Head, request: Request) -> bool:
        await self._scene.gate.wait()
        early = self._scene.take("answer", request.method, request.path)
        if early.delay:
            await self._line.pause(early.delay)
        if early.no_answer == "silence":
            await self._line.pause(None)
        elif early.no_answer is not None:
            await self._line.end(by_reset=early.no_answer == "reset")
        if early.status is not None:
            return await self._reply(head, request, _given(early, request.path))
        refused, extra = self._refuse(request)
        if refused is not None:
            return await self._reply(head, request, refused)
        if request.path == tokens.PATH and self._scene.tokens is not None:
            body = b"".join([data async for data in read_body(self._line.reader, head, of_answer=False)])
            given = self._scene.tokens.give(request.method, request.query, request.headers, body)
            return await self._reply(head, request, given, drain=False)
        if not request.path.startswith(ELSEWHERE):
            elsewhere = self._scene.take("redirect", request.method, request.path)
            if elsewhere.elsewhere:
                return await self._reply(head, request, self._redirect(elsewhere, request))
        fault = self._scene.take("body", request.method, request.path)
        return await self._pass_on(head, request, fault, extra)

    def _refuse(self, request: Request) -> tuple[Reply | None, dict[str, str]]:
        """A refusal where the client may not have this, and headers for the answer where it may."""
        scene, path = self._scene, request.path
        if path.startswith(ELSEWHERE):
            said = request.authorization if self._elsewhere else None
            return scene.links.refuse(path.removeprefix(ELSEWHERE), request.query, said), {}
        if self._elsewhere:
            return error(404, path), {}
        if not path.startswith("/v2/"):
            return None, {}
        found = _CONTENT.fullmatch(path)
        if scene.tokens is not None:
            repository = found["repository"] if found else None
            refused = scene.tokens.refuse(request.authorization, request.method, repository, scene.url + tokens.PATH)
            if refused is not None:
                return refused, {}
        elif scene.login is not None and request.authorization != basic(scene.login):
            return error(401, path, {"WWW-Authenticate": 'Basic realm="front"'}), {}
        if scene.hub is not None and "/manifests/" in path:
            passes, headers = scene.hub.count(request.method)
            return None if passes else error(429, path, headers), headers
        return None, {}

    def _redirect(self, fault: Fault, request: Request) -> Reply:
        signed = self._scene.links.sign(request.path, request.query, fault.life)
        if fault.elsewhere == "host":
            location = self._scene.elsewhere_url + signed
        elif fault.elsewhere == "relative":
            location = signed
        else:
            location = f"{fault.elsewhere}{request.path}{'?' + request.query if request.query else ''}"
        return Reply(307, {"Location": location, **fault.headers}, b"")

    async def _reply(self, head: Head, request: Request, reply: Reply, *, drain: bool = True) -> bool:
        """Answers without the registry."""
        waits = head.get("expect") is not None
        if drain and not waits:
            async for _ in read_body(self._line.reader, head, of_answer=False):
                pass
        answer = Head(reply.line(), [*reply.headers.items(), ("Content-Length", str(len(reply.body)))])
        if head.chunked and waits:
            answer.put("Connection", "close")
        request.status = reply.status
        body = b"" if request.method == "HEAD" else reply.body
        request.sent += len(body)
        await self._line.write(answer.encode() + body)
        return not waits

    async def _pass_on(self, head: Head, request: Request, fault: Fault, extra: dict[str, str]) -> bool:
        """Asks the registry, and sends its answer with what goes wrong."""
        asked = self._asked(head, request, fault)
        body = read_body(self._line.reader, head, of_answer=False)
        async with self._link.asking(asked, body, self._line.write) as (answer, content, pumped):
            keep = answer.keeps and (
                answer.chunked or request.method == "HEAD" or answer.get("content-length") is not None
            )
            keep = keep or (answer.keeps and answer.status in _NO_BODY)
            await self._send(answer, content, request, fault, extra)
            return keep and pumped()

    def _asked(self, head: Head, request: Request, fault: Fault) -> Head:
        """The request as the registry gets it."""
        scene = self._scene
        asked = Head(head.line, list(head.headers))
        asked.put("X-Forwarded-Proto", scene.url.partition(":")[0])
        elsewhere = request.path.startswith(ELSEWHERE)
        if elsewhere:
            asked.line = f"{request.method} {request.path.removeprefix(ELSEWHERE)} HTTP/1.1"
        if scene.guarded or elsewhere or scene.target.login is not None:
            asked.drop("authorization")
            if scene.target.authorization is not None:
                asked.put("Authorization", scene.target.authorization)
        if fault.ignore_range:
            asked.drop("range", "if-range")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.get("range") or "")
        if fault.shift and wanted:
            asked.put("Range", f"bytes={int(wanted[1]) + fault.shift}-{wanted[2]}")
        return asked

    async def _send(
        self, answer: Head, content: AsyncIterator[bytes], request: Request, fault: Fault, extra: dict[str, str]
    ) -> None:
        for name, value in [*extra.items(), *fault.headers.items()]:
            answer.put(name, value)
        length = int(answer.get("content-length") or -1)
        if fault.short is not None and fault.short < length:
            answer.put("Content-Length", str(fault.short))
        if fault.chunked:
            answer.drop("content-length", "transfer-encoding")
            answer.put("Transfer-Encoding", "chunked")
        answer.drop(*fault.without)
        request.status = answer.status
        await self._line.write(answer.encode())
        if request.method == "HEAD" or answer.status in _NO_BODY or fault.short == 0:
            return
        try:
            noted = self._scene.records.changed
            await self._line.send(content, fault, request, chunked=answer.chunked, noted=noted)
        except BrokenOff:  # the registry's answer ended early: so does ours
            raise Ended("the registry broke off") from None


def _given(fault: Fault, path: str) -> Reply:
    """The answer that stands in place of the registry's."""
    assert fault.status is not None
    if fault.body is None and fault.status >= 400:
        return error(fault.status, path, fault.headers)
    return Reply(fault.status, fault.headers, fault.body or b"")


async def serve(connection: Connection) -> None:
    """Runs a connection to its end, also when it is cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        await connection.run()
