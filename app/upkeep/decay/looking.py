"""Asking for one object of a store that may not be able to give it.

A disk that lost a few bytes makes MinIO answer 500 or 503 for the objects that lay there, for ever, and leave some of
them out of listings, while all others are served. That is a finding, not the end of a run.
"""

from collections.abc import Awaitable
from typing import TypeVar

from app.registry.bucket import Bucket
from storage import Corrupt, NotFound, Unavailable

T = TypeVar("T")


class Withheld(Exception):
    """The store answers, and does not give this object; the message is the store's."""


async def asked(bucket: Bucket, work: Awaitable[T]) -> T:
    """What a request of one object brings. Raises Withheld, and StorageError where the store as a whole fails."""
    try:
        return await work
    except (Corrupt, Unavailable) as exc:
        await bucket.driver.ready()
        raise Withheld(str(exc)) from exc


async def stands(bucket: Bucket, key: str) -> bool:
    """Whether a key is there now, and can be used. Raises StorageError where the store as a whole fails."""
    try:
        await asked(bucket, bucket.driver.stat(key))
    except (NotFound, Withheld):
        return False
    return True
