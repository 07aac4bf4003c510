"""Everybody at once, in an order that chance makes: what was acknowledged and not deleted stays whole."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from app.oci.digests import Digest, digest_of
from app.oci.errors import RegistryError
from app.oci.names import Name
from app.registry import keys
from app.registry.collection import Candidate, Collector, Terms
from app.registry.intents import Intents
from app.registry.needs import StoredNeeds
from app.registry.publishing import linked
from storage import FenceExpired
from storage.memory import MemoryDriver
from tests.registry.recorded import Clock
from tests.upkeep.yard import HOUR, Yard, yard

NAMES = [Name("a"), Name("b/c"), Name("d")]
CONTENTS = [f"layer {number}".encode() for number in range(6)]
STEPS = 400


class Scattered:
    """A driver each of whose requests takes its own time, so that tasks meet in every order."""

    name = "memory"

    def __init__(self, driver: MemoryDriver, dice: random.Random) -> None:
        self._driver, self._dice = driver, dice

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._driver, name)
        if name not in ("get", "stat", "list", "put", "delete", "copy", "delete_many"):
            return found

        async def scattered(*given: Any, **named: Any) -> Any:
            for _ in range(self._dice.choice((0, 0, 1, 2, 3, 8, 30))):
                await asyncio.sleep(0)
            return await found(*given, **named)

        return scattered


class Crowd:
    """Those who push, mount, delete and collect. `living` holds what was acknowledged and not deleted."""

    def __init__(self, replicas: list[Yard], shelf: MemoryDriver, clock: Clock, dice: random.Random) -> None:
        self.replicas, self.shelf, self.clock, self.dice = replicas, shelf, clock, dice
        self.living: dict[tuple[Name, Digest], list[bytes]] = {}
        self.count = 0
        self.collected = 0

    @property
    def at(self) -> Yard:
        return self.dice.choice(self.replicas)

    async def push(self) -> None:
        name, layers = self.dice.choice(NAMES), self.dice.sample(CONTENTS, self.dice.randint(1, 3))
        await self._publish(name, [await self.at.push(data, name) for data in layers], layers)

    async def mount(self) -> None:
        source, name = self.dice.sample(NAMES, 2)
        data = self.dice.choice(CONTENTS)
        digest = digest_of(data)
        if await self.at.repository(name).blobs.mount(digest, source, lambda _: True) is not None:
            await self._publish(name, [digest], [data])

    async def _publish(self, name: Name, digests: list[Digest], layers: list[bytes]) -> None:
        self.count += 1
        digest = await self.at.publish(*digests, name=name, annotations={"n": str(self.count)})
        self.living[name, digest] = layers

    async def delete_image(self) -> None:
        if self.living:
            name, digest = self.dice.choice(list(self.living))
            del self.living[name, digest]
            await self.at.repository(name).manifests.delete(digest)

    async def delete_blob(self) -> None:
        name = self.dice.choice(NAMES)
        await self.at.repository(name).blobs.delete(digest_of(self.dice.choice(CONTENTS)))

    async def collect(self) -> None:
        self.collected += (await self.at.collect()).freed

    async def collect_without_grace(self) -> None:
        """As an eviction does, of whatever a repository links."""
        at, name = self.at, self.dice.choice(NAMES)
        digest = digest_of(self.dice.choice(CONTENTS))
        candidates = [Candidate(digest, copy, frozenset({name})) for copy in await linked(at.bucket, name, digest)]
        terms = Terms(only_seen=self.dice.random() < 0.5)
        await Collector(at.bucket, Intents(at.bucket), StoredNeeds(at.bucket), terms).collect(candidates)

    async def pass_time(self) -> None:
        self.clock.now += self.dice.choice((30, 300, 1000, HOUR, 5 * HOUR, 25 * HOUR))

    def demand(self) -> None:
        """The promise, in every moment: each layer of what lives has a link in its repository to bytes that are there."""
        objects = self.shelf._shelf.objects
        linked = {(keys.placed(key)[0], keys.digest_below(key)) for key in objects if self._is_whole(key)}
        for (name, digest), layers in self.living.items():
            assert all((name, digest_of(data)) in linked for data in layers), (name, digest)

    def _is_whole(self, key: str) -> bool:
        if not key.startswith(keys.REPOSITORIES) or "/_blobs/" not in key:
            return False
        return keys.data(keys.copy_of(key).uuid) in self.shelf._shelf.objects

    async def for_a_while(self, act: Callable[[], Awaitable[None]], steps: int) -> None:
        for _ in range(steps):
            with suppress(RegistryError, FenceExpired):  # told to come back
                await act()
            self.demand()
            for _ in range(self.dice.randrange(20)):
                await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(12))
async def test_nothing_that_was_acknowledged_is_lost(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.registry.uploads.SHARED_FROM", 0)
    dice, clock = random.Random(seed), Clock()
    shelf = MemoryDriver(clock)

    async def pass_(seconds: float) -> None:
        clock.now += seconds

    async with yard(Scattered(shelf.replica(), dice), pass_) as one, yard(Scattered(shelf, dice), pass_) as two:  # type: ignore[arg-type]
        crowd = Crowd([one, two], shelf, clock, dice)
        acts = {
            crowd.push: STEPS // 4,
            crowd.mount: STEPS // 4,
            crowd.delete_image: STEPS // 5,
            crowd.delete_blob: STEPS // 8,
            crowd.collect_without_grace: STEPS // 4,
            crowd.pass_time: STEPS // 8,
            crowd.collect: STEPS // 40,
        }
        await asyncio.gather(*(crowd.for_a_while(act, steps) for act, steps in acts.items() for _ in range(2)))
        assert crowd.living
        for (name, digest), layers in crowd.living.items():
            assert (await one.repository(name).manifests.get(digest))[0].digest == digest
            assert [await two.read(digest_of(data), name) for data in layers] == layers
        assert one.alarms == two.alarms == []
        for _ in range(3):
            await pass_(49 * HOUR)
            assert (await one.collect()).state == "done"
        needed = {digest_of(data) for layers in crowd.living.values() for data in layers}
        bodies = [
            json.loads((await shelf.get(key)).data) for key in await one.keys("repositories/") if "/_manifests/" in key
        ]
        assert {layer["digest"] for body in bodies for layer in body["layers"]} >= needed
        linked_ = {keys.copy_of(key).uuid for key in await one.keys("repositories/") if "/_blobs/" in key}
        assert {key.removeprefix(keys.DATA) for key in await one.keys(keys.DATA)} == linked_
