"""Records: every request that came to the front, and what was sent in answer."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(slots=True)
class Request:
    """One request. `path` and `query` as they came; header names in lower case; times by the monotonic clock."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    client_port: int
    port: int
    begun: float = field(default_factory=time.monotonic)
    status: int | None = None
    """None while nothing, or for ever where nothing, was answered."""
    sent: int = 0
    """Bytes of the body that went out so far."""
    ended: float | None = None
    """Set, like `whole`, a moment after the last byte went out: wait for it with `Front.wait_until`."""
    whole: bool = False
    """Whether the answer went out to its end."""

    @property
    def authorization(self) -> str | None:
        """The Authorization header."""
        return self.headers.get("authorization")


class Records:
    """All requests, in the order in which they came. Safe to use from every thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests: list[Request] = []

    def begin(self, request: Request) -> None:
        """Adds one."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def changed(self) -> None:
        """Wakes those who wait: a request answered, or grew."""
        with self._changed:
            self._changed.notify_all()

    def forget(self) -> None:
        """Starts anew."""
        with self._changed:
            self._requests.clear()

    def find(self, path: str = "*", method: str | None = None) -> list[Request]:
        """Those whose path (without the query) matches the pattern, in which `*` matches slashes too."""
        with self._changed:
            found = list(self._requests)
        return [one for one in found if method in (None, one.method) and fnmatchcase(one.path, path)]

    def wait_until(self, holds: Callable[[], bool], timeout: float) -> None:
        """Blocks until `holds()`, which is asked again after each event; raises AssertionError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(holds, timeout):
                seen = [f"{one.method} {one.path}: {one.status}, {one.sent} bytes" for one in self._requests[-20:]]
                raise AssertionError(f"the front waited {timeout} s in vain; it saw\n" + "\n".join(seen))

    def totals(self) -> dict[str, Any]:
        """Counts, ready for JSON: requests and bytes in all, and of each method, path and status."""
        found = self.find()
        requests = Counter(f"{one.method} {one.path} {one.status}" for one in found)
        sent: Counter[str] = Counter()
        for one in found:
            sent[one.path] += one.sent
        return {
            "requests": len(found),
            "bytes": sum(one.sent for one in found),
            "authorized": sum(one.authorization is not None for one in found),
            "by_request": dict(sorted(requests.items())),
            "bytes_by_path": {path: size for path, size in sorted(sent.items()) if size},
        }
