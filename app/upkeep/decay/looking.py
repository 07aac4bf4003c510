"""Asking for one object of a store that may not be able to give it.

A disk that lost a few bytes makes MinIO answer 500 or 503 for the objects that lay there, for ever, and leave some of
them out of listings, while all others are served. That is a finding, not the end of a run. A store that restarts refuses
for some seconds all that it has: so whatever is refused is asked for again once the store answers.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.registry.bucket import Bucket
from storage import Corrupt, NotFound, Unavailable

T = TypeVar("T")


class Withheld(Exception):
    """The store answers, before and after, and does not give this object; the message is the store's."""


async def asked(bucket: Bucket, work: Callable[[], Awaitable[T]]) -> T:
    """What a request of one object brings; a request that is refused is made a second time, once the store answers.

    Raises Withheld where that is refused too and the store answers still, and StorageError where the store as a whole fails.
    """
    try:
        return await work()
    except (Corrupt, Unavailable):
        await bucket.driver.ready()
    return await once(bucket, work)


async def once(bucket: Bucket, work: Callable[[], Awaitable[T]]) -> T:
    """As `asked`, for what must not be made twice, such as a conditional write: the second fails by what the first wrote."""
    try:
        return await work()
    except (Corrupt, Unavailable) as exc:
        await bucket.driver.ready()
        raise Withheld(str(exc)) from exc


async def stands(bucket: Bucket, key: str) -> bool:
    """Whether a key is there now, and can be used. Raises StorageError where the store as a whole fails."""
    try:
        await asked(bucket, lambda: bucket.driver.stat(key))
    except (NotFound, Withheld):
        return False
    return True
