"""The verdicts: which passwords were found right, for a while, without keeping any of them."""

import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from app.auth.basic import Credentials


@dataclass(frozen=True, slots=True)
class _Verdict:
    line: bytes
    until: float


class Verdicts:
    """Right passwords of the last `seconds`, `most` of them at most, each tied to the hash it was checked against.

    A password stands here only as an HMAC under a key that this process draws at random and never writes down.
    """

    def __init__(self, seconds: float, *, most: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._key = os.urandom(32)
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()

    def __len__(self) -> int:
        return len(self._verdicts)

    def key(self, credentials: Credentials) -> bytes:
        """A name for a user and a password that tells nothing about either."""
        message = credentials.user.encode(errors="surrogatepass") + b"\0" + credentials.password
        return hmac.digest(self._key, message, "sha256")

    def holds(self, key: bytes, line: bytes) -> bool:
        """Whether these credentials were found right against exactly this hash, not too long ago."""
        verdict = self._verdicts.get(key)
        if verdict is None:
            return False
        if verdict.until <= self._clock() or not hmac.compare_digest(verdict.line, line):
            del self._verdicts[key]
            return False
        self._verdicts.move_to_end(key)
        return True

    def remember(self, key: bytes, line: bytes) -> None:
        """Notes that these credentials are right; the verdict that was used longest ago makes room."""
        self._verdicts[key] = _Verdict(line, self._clock() + self._seconds)
        self._verdicts.move_to_end(key)
        if len(self._verdicts) > self._most:
            self._verdicts.popitem(last=False)
