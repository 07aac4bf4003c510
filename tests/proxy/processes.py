"""Real server processes that pull from the front, and clients that read from them over real connections."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.proxy.pulling import UP
from tests.services.front import Front
from tests.services.registry import RegistryServer


def server(
    folder: Path, store: Mapping[str, str], front: Front, *, spool: Path | None = None, **settings: Any
) -> RegistryServer:
    """A server, not yet started, whose upstream is the front; `settings` are further ones of `proxy` in capitals."""
    upstream = {"name": UP, "url": front.url, "stall_timeout": 30, "prefetch": {"enabled": False}}
    chosen = {
        "UPSTREAMS": json.dumps([upstream]),
        "SPOOL__FOLDER": str(spool or folder / "spool"),
        **{name: str(value) for name, value in settings.items()},
    }
    variables = {f"EDGE_REGISTRY_PROXY__{name}": value for name, value in chosen.items()}
    return RegistryServer(folder, store, settings={**variables, "EDGE_REGISTRY_HTTP__DRAIN_TIMEOUT": "1"})


def revived(server: RegistryServer) -> RegistryServer:
    """The server, started again where a test has ended it."""
    process = server._process
    return server if process is not None and process.poll() is None else server.start()


class Pull:
    """One GET over a socket of its own, read as far as a test wishes."""

    def __init__(self, server: RegistryServer, path: str, start: int = 0) -> None:
        self.body = bytearray()
        self.whole = False
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=40)
        wanted = f"Range: bytes={start}-\r\n" if start else ""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: registry\r\n{wanted}\r\n".encode())
        self._file = self._socket.makefile("rb")
        self._length: int | None = None
        self.status = 0

    def begin(self) -> "Pull":
        """Reads the headers."""
        if self._length is None:
            self.status = int(self._file.readline().split()[1])
            while (line := self._file.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    self._length = int(value)
        return self

    def has(self, size: int) -> "Pull":
        """Reads until so many bytes came; fails where they do not."""
        self.begin()
        self.body += self._file.read(size - len(self.body))
        assert len(self.body) == size, f"{self.status} ended after {len(self.body)} bytes"
        return self

    def rest(self) -> "Pull":
        """Reads to the end, or to where the connection breaks."""
        try:
            self.begin()
            assert self._length is not None
            while len(self.body) < self._length and (chunk := self._file.read1(1 << 16)):
                self.body += chunk
            self.whole = len(self.body) == self._length
        except (ConnectionError, IndexError):  # no first line: the server has gone
            pass
        self.close()
        return self

    def close(self) -> None:
        """Ends the connection."""
        self._file.close()
        self._socket.close()
