"""What past runs of upkeep said: the last documents of each kind, kept in the bucket as JSON.

What must not be pushed out by something else has a kind of its own.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.listing import every
from storage import Entry, NotFound

_MOST: Final = 20


@dataclass(frozen=True, slots=True)
class Kept:
    """One document, and when it was written: seconds since 1970 by the store's clock."""

    at: float
    document: dict[str, Any]


async def keep(bucket: Bucket, kind: str, began: float, document: Mapping[str, Any]) -> str:
    """Writes a document and drops old ones of its kind; returns its key. `began` in seconds since 1970.

    Raises StorageError.
    """
    key = keys.report(kind, began)
    await bucket.driver.put(key, json.dumps(document).encode())
    await bucket.driver.delete_many([entry.key for entry in (await _known(bucket, kind))[:-_MOST]])
    return key


async def latest(
    bucket: Bucket, *kinds: str, wanted: Callable[[Mapping[str, Any]], bool] = lambda _document: True
) -> Kept | None:
    """The latest of these kinds that can be read and is wanted; None where there is none. Raises StorageError."""
    for entry in reversed(await _known(bucket, *kinds)):
        try:
            found = json.loads((await bucket.driver.get(entry.key)).data)
        except (NotFound, ValueError):
            continue
        if isinstance(found, dict) and wanted(found):
            return Kept(entry.modified, found)
    return None


async def _known(bucket: Bucket, *kinds: str) -> Sequence[Entry]:
    """The oldest first: by the store's clock, for those of the replicas that name them may differ."""
    known = [entry for kind in kinds async for entry in every(bucket.driver, keys.reports(kind))]
    return sorted(known, key=lambda entry: (entry.modified, entry.key.rpartition("/")[2]))
