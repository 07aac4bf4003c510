"""Programs on one folder that tests run as processes of their own: `python -m tests.storage.programs <name> <root>`."""

import asyncio
import json
import sys
from pathlib import Path

from storage.driver import Absent, Version
from storage.errors import ConditionFailed
from storage.filesystem import FilesystemDriver

RACES = 60


def object_of(number: int) -> bytes:
    """What `puts` writes under its key number `number`: big enough that a torn write would show."""
    return b"%08d" % number * 20_000


def say(line: str) -> None:
    print(line, flush=True)


async def creates(driver: FilesystemDriver) -> None:
    """Tries to create the same keys as everybody else; says which it won."""
    for number in range(RACES):
        try:
            await driver.put(f"race/{number}", b"x", condition=Absent())
        except ConditionFailed:
            continue
        say(f"won {number}")


async def counts(driver: FilesystemDriver) -> None:
    """Adds one to a number that everybody adds to, as often as RACES says."""
    for _ in range(RACES):
        while True:
            seen = await driver.get("count")
            try:
                await driver.put("count", b"%d" % (int(seen.data) + 1), condition=Version(seen.version))
                break
            except ConditionFailed:
                continue


async def puts(driver: FilesystemDriver) -> None:
    """Puts objects until it is killed; says which were acknowledged."""
    for number in range(1_000_000):
        await driver.put(f"puts/{number}", object_of(number))
        say(f"put {number}")


async def writes(driver: FilesystemDriver) -> None:
    """Suspends a writer, says its state, resumes it and writes until it is killed."""
    writer = driver.create("data/key", "uploads/one/")
    await writer.write(b"kept" * 1_000_000)
    state = await writer.suspend()
    say(f"state {json.dumps(state, separators=(',', ':'))}")
    writer = driver.resume("data/key", "uploads/one/", state)
    for number in range(1_000_000):
        await writer.write(b"lost" * 500_000)
        say(f"wrote {number}")
        if number > 50:
            await asyncio.Event().wait()


async def main(name: str, root: str) -> None:
    driver = FilesystemDriver(Path(root))
    await driver.start()
    say("ready")
    sys.stdin.readline()
    await {"creates": creates, "counts": counts, "puts": puts, "writes": writes}[name](driver)
    await driver.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
