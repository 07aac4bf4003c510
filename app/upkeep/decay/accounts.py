"""Accounts of verify, as they are kept in the bucket."""

import time
from collections.abc import Mapping
from typing import Any, Final

from app.registry.bucket import Bucket
from app.upkeep import kept
from app.upkeep.decay.findings import Account

KIND: Final = "verify"
"""Where they lie, among what past runs said."""


async def keep(bucket: Bucket, account: Account) -> str:
    """Writes an account and drops old ones; returns its key. Raises StorageError."""
    return await kept.keep(bucket, KIND, time.time() - bucket.capabilities.clock_skew, account.document())


async def last(bucket: Bucket) -> dict[str, Any] | None:
    """The latest account that can be read; None where there is none. Raises StorageError."""
    found = await kept.latest(bucket, KIND)
    return found.document if found else None


async def last_whole(bucket: Bucket) -> kept.Kept | None:
    """The latest account of the whole bucket; None where there is none. Raises StorageError."""
    return await kept.latest(bucket, KIND, lambda document: document.get("whole") is True)


def sampled_until(account: Mapping[str, Any] | None) -> float:
    """Where the sample of an account ended, between 0 and 1; 0 where that cannot be told."""
    try:
        place = float((account or {})["sample"]["to"])
    except (KeyError, TypeError, ValueError):
        return 0.0
    return place if 0.0 <= place < 1.0 else 0.0


def doubted(account: Mapping[str, Any] | None) -> frozenset[str]:
    """Keys of the bytes of blobs that were bad and were not mended: the next run reads them, whatever its sample."""
    try:
        findings = [dict(finding) for finding in (account or {})["findings"]]
        return frozenset(
            str(finding["key"]) for finding in findings if finding["kind"].startswith("copy-") and not finding["mended"]
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return frozenset()
