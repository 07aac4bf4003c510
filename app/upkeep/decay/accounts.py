"""Accounts of verify, as they are kept in the bucket."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from app.registry.bucket import Bucket
from app.registry.clock import assumed_now
from app.upkeep import kept
from app.upkeep.decay.findings import Account

KIND: Final = "verify"
"""Where those of the whole bucket lie, among what past runs said."""
SCOPED: Final = "verify-scoped"
"""Where those of some repositories lie."""
FAILED: Final = "verify-failed"
"""Where it is said that servers began and did not reach the end: apart, so that this pushes no account out."""


async def keep(bucket: Bucket, account: Account) -> str:
    """Writes an account and drops old ones; returns its key. Raises StorageError."""
    kind = KIND if account.scope is None else SCOPED
    return await kept.keep(bucket, kind, assumed_now(bucket.capabilities), account.document())


async def keep_failure(bucket: Bucket, why: str) -> str:
    """Writes that a run of the whole bucket did not reach its end; returns the key. Raises StorageError."""
    now = assumed_now(bucket.capabilities)
    document = {"whole": False, "ended": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"), "failed": why}
    return await kept.keep(bucket, FAILED, now, document)


async def last_of(bucket: Bucket, scope: str | None) -> kept.Kept | None:
    """The latest account of the same repositories; None where there is none. Raises StorageError."""
    if scope is None:
        return await last_whole(bucket)
    return await kept.latest(bucket, SCOPED, wanted=lambda document: document.get("repositories") == scope)


async def last_failure(bucket: Bucket) -> kept.Kept | None:
    """The latest run of servers that did not reach its end; None where there is none. Raises StorageError."""
    return await kept.latest(bucket, FAILED)


async def last(bucket: Bucket) -> dict[str, Any] | None:
    """The latest account that can be read, whatever it is of; None where there is none. Raises StorageError."""
    found = await kept.latest(bucket, KIND, SCOPED)
    return found.document if found else None


async def last_whole(bucket: Bucket) -> kept.Kept | None:
    """The latest account of the whole bucket; None where there is none. Raises StorageError."""
    return await kept.latest(bucket, KIND, wanted=lambda document: document.get("whole") is True)


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
