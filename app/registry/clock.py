"""The store's own clock, by which everything in the bucket is dated."""

import time

from app.registry import keys
from storage import Capabilities, Driver


async def store_now(driver: Driver) -> float:
    """Seconds since 1970 as the store counts them, at most a second behind. Three requests. Raises StorageError.

    It is the date of an object that was written just now: no clock of this machine is asked, for it may be hours off.
    """
    key = f"{keys.LEASES}clock-{keys.fresh()}"  # what a killed process leaves there is swept with the dead leases
    await driver.put(key, b"")
    try:
        return (await driver.stat(key)).modified
    finally:
        await driver.delete(key)


def assumed_now(capabilities: Capabilities) -> float:
    """Seconds since 1970 by the store's clock, as far as the probe at start could tell. No request."""
    return time.time() - capabilities.clock_skew
