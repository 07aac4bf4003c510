"""Reads one URL at a moment that is given, and prints as JSON what came and when; bench/pull_through.py runs several at once."""

# ruff: noqa: T201  # its output is its result

import argparse
import hashlib
import http.client
import json
import time
from urllib.parse import urlsplit

_STRIDE = 1 << 20
_TRIES = 60


def main() -> None:
    """Reads on by Range when the answer breaks off, as containerd does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--at", type=float, default=0.0, help="seconds since 1970 at which to begin")
    options = parser.parse_args()
    time.sleep(max(0.0, options.at - time.time()))
    began, first, breaks = time.monotonic(), 0.0, 0
    running, size, whole = hashlib.sha256(), 0, None
    while whole is None or size < whole:
        try:
            for chunk, length in _read(options.url, size):
                whole = length
                first = first or time.monotonic() - began
                running.update(chunk)
                size += len(chunk)
        except (OSError, http.client.HTTPException):
            pass
        if whole is None or size < whole:
            breaks += 1
            if breaks > _TRIES:
                break
            time.sleep(0.5)
    seconds = time.monotonic() - began
    digest = f"sha256:{running.hexdigest()}"
    print(json.dumps({"seconds": seconds, "first": first, "size": size, "digest": digest, "breaks": breaks}))


def _read(url, start):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    try:
        connection.request("GET", parts.path, headers={"Range": f"bytes={start}-"} if start else {})
        answer = connection.getresponse()
        if answer.status not in (200, 206):
            raise OSError(answer.status)
        length = start + int(answer.headers["Content-Length"])
        while chunk := answer.read1(_STRIDE):
            yield chunk, length
    finally:
        connection.close()


if __name__ == "__main__":
    main()
