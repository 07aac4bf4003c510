"""What a bucket can do, tried at start with throw-away keys: stores differ, and some ignore what they do not know."""

import secrets
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from storage.driver import Absent, Capabilities, Fence, Finding, Version
from storage.errors import ConditionFailed, FenceExpired, StorageError, Unsupported

if TYPE_CHECKING:
    from storage.driver import Condition, Driver

MOST_SKEW: Final = 60.0
"""Seconds of clock difference that are reported; 15 minutes are refused by the store itself."""


async def probe(driver: "Driver", skew: float) -> Capabilities:
    """Runs every trial; `skew` is this clock minus the store's, in seconds. Raises what an ordinary write would raise."""
    base = f"upkeep/probe/{secrets.token_hex(8)}"
    try:
        await driver.put(f"{base}/a", b"1")
        listed = [entry.key for entry in (await driver.list(f"{base}/")).entries] == [f"{base}/a"]
        creates = await _refused(driver, f"{base}/a", Absent())
        matches = await _refused(driver, f"{base}/a", Version('"00000000000000000000000000000000"'))
        fenced = await _fence_holds(driver, f"{base}/stale", f"{base}/a")
    finally:
        await driver.delete_many([f"{base}/a", f"{base}/stale"])
    findings = (
        _finding(
            "listing after write", listed, "a new key is not listed at once: this store is NOT SAFE for a registry"
        ),
        _finding("conditional put", creates and matches, "it ignores conditions: immutable tags and leases are off"),
        _finding("stale signatures", fenced, "it accepts expired requests: garbage collection is off"),
        _finding("clock", abs(skew) <= MOST_SKEW, f"this machine's clock differs by {skew:+.0f} s: set it with NTP"),
    )
    return Capabilities(
        conditional_put=creates and matches,
        fences=fenced,
        list_after_write=listed,
        clock_skew=skew,
        findings=findings,
    )


async def _refused(driver: "Driver", key: str, condition: "Condition") -> bool:
    try:
        await driver.put(key, b"2", condition=condition)
    except (ConditionFailed, Unsupported):
        return True
    return False


async def _fence_holds(driver: "Driver", key: str, there: str) -> bool:
    """Whether a stale write is refused, and a stale bulk delete too, which keeps its key."""
    fence = driver.fence()
    stale = Fence(fence.signed_at - 2 * fence.lifetime, fence.lifetime)
    return (
        await _expires(driver.put(key, b"", fence=stale))
        and await _expires(driver.delete_many([there], fence=stale))
        and [entry.key for entry in (await driver.list(there)).entries] == [there]
    )


async def _expires(work: Awaitable[None]) -> bool:
    try:
        await work
    except FenceExpired:
        return True
    except StorageError:
        return False
    return False


def _finding(name: str, ok: bool, otherwise: str) -> Finding:
    return Finding(name, ok, "works" if ok else otherwise)
