"""The throttle: how many wrong passwords one origin may try for one user."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from app.oci.errors import TooManyRequests

_REPEATS: Final = 5
"""Tries of one wrong password that count as one: containerd sends the same one up to five times."""

_KEPT: Final = 16
"""Wrong passwords a bucket tells apart."""


def origin(peer: str) -> str:
    """What counts as one peer: an IPv4 address, a /64 of IPv6 (one customer has that many), else the text as it is."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: float
    tries: OrderedDict[bytes, int] = field(default_factory=OrderedDict)


class Throttle:
    """A bucket of `burst` tokens for each origin and user, refilled with `per_minute`; each wrong password takes one.

    Nobody is locked out by what others do from elsewhere. It remembers `most` buckets; the one used longest ago goes
    first.
    """

    def __init__(
        self,
        *,
        burst: int = 10,
        per_minute: float = 10,
        most: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._rate = per_minute / 60
        self._most = most
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, int], _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def admit(self, source: str, user: str) -> None:
        """Raises TooManyRequests with Retry-After (seconds) while `source` may not try another password of `user`."""
        bucket = self._buckets.get(_name(source, user))
        if bucket is None:
            return
        self._fill(bucket)
        if bucket.tokens < 1:
            wait = math.ceil((1 - bucket.tokens) / self._rate)
            raise TooManyRequests("too many wrong passwords; try again later", headers={"Retry-After": str(wait)})

    def spend(self, source: str, user: str, key: bytes) -> None:
        """Takes a token before the check, so that tries at the same moment count too. `key` names the password."""
        name = _name(source, user)
        bucket = self._buckets.setdefault(name, _Bucket(self._burst, self._clock()))
        self._buckets.move_to_end(name)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        tries = bucket.tries.pop(key, 0)
        if tries % _REPEATS == 0:
            self._fill(bucket)
            bucket.tokens -= 1
        bucket.tries[key] = tries + 1
        if len(bucket.tries) > _KEPT:
            bucket.tries.popitem(last=False)

    def refund(self, source: str, user: str, key: bytes) -> None:
        """Gives the token back: the password was right, or was not checked."""
        name = _name(source, user)
        bucket = self._buckets.get(name)
        if bucket is None or not bucket.tries.pop(key, 0):
            return
        bucket.tokens = min(self._burst, bucket.tokens + 1)
        if bucket.tokens >= self._burst:
            del self._buckets[name]

    def _fill(self, bucket: _Bucket) -> None:
        now = self._clock()
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled) * self._rate)
        bucket.filled = now


def _name(source: str, user: str) -> tuple[str, int]:
    return source, hash(user)  # seeded at random in each process; a user of 4 KiB costs no memory
