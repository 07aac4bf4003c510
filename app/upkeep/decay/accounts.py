"""Accounts of verify, kept in the bucket: the last ones, as JSON."""

import json
import secrets
from datetime import UTC, datetime
from typing import Any, Final

from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.listing import every
from app.upkeep.decay.findings import Account
from storage import NotFound

_PREFIX: Final = f"{keys.REPORTS}verify-"
_KEPT: Final = 20


async def keep(bucket: Bucket, account: Account) -> str:
    """Writes an account and drops old ones; returns its key. Raises StorageError."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    key = f"{_PREFIX}{stamp}-{secrets.token_hex(4)}.json"
    await bucket.driver.put(key, json.dumps(account.document()).encode())
    known = [entry.key async for entry in every(bucket.driver, _PREFIX)]
    await bucket.driver.delete_many(known[:-_KEPT])
    return key


async def last(bucket: Bucket) -> dict[str, Any] | None:
    """The latest account that can be read; None where there is none. Raises StorageError."""
    for key in reversed([entry.key async for entry in every(bucket.driver, _PREFIX)]):
        try:
            found = json.loads((await bucket.driver.get(key)).data)
        except (NotFound, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return None


def sampled_until(account: dict[str, Any] | None) -> float:
    """Where the sample of an account ended, between 0 and 1; 0 where that cannot be told."""
    try:
        place = float((account or {})["sample"]["to"])
    except (KeyError, TypeError, ValueError):
        return 0.0
    return place if 0.0 <= place < 1.0 else 0.0
