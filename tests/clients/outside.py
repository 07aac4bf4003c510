"""The world outside: the proxy that clients are told to use, which notes whom they want to reach and lets nobody out."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Outside:
    """An HTTP proxy on 127.0.0.1. Go's clients go past it to loopback addresses, and to no others."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        """Whom clients wanted to reach, as `host:port`, in their order."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a program go this way."""
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        return dict.fromkeys(names, url) | {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        asked = self.asked

        class Refusal(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                self._refuse(self.path)

            def do_GET(self) -> None:
                self._refuse(urlsplit(self.path).netloc)

            do_HEAD = do_POST = do_GET  # noqa: N815

            def _refuse(self, whom: str) -> None:
                asked.append(whom)
                self.send_error(502, "there is no way out")

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        return Refusal

    def __enter__(self) -> "Outside":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
