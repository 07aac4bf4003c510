"""Those who use a registry during a soak: pushers, mounters, deleters, pullers, and clients that leave half-way."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bench.fleet import Fleet, Lost
from bench.ledger import Ledger, Place, Stored
from tests.services.client import INDEX, MANIFEST, OCTETS, Answer, descriptor, digest_of, make_image, make_index

REPOSITORIES: Final = ("app", "team/app", "team/base", "deep/er/still", "other", "mirror/docker.io/tool")
_LARGEST: Final = 300_000
_MOST: Final = 400
"""Living manifests above which deleters hurry and pushers rest."""
Actor = Callable[[], Awaitable[None]]


class GivenUp(Exception):
    """A push that a client would report as failed."""


class Actors:
    """What each does in one round; every round is some requests, each at any replica."""

    def __init__(self, fleet: Fleet, ledger: Ledger, dice: random.Random) -> None:
        self._fleet, self._ledger, self._dice = fleet, ledger, dice
        self._shared = [dice.randbytes(dice.randrange(1, _LARGEST)) for _ in range(12)]
        self._names = iter(range(1 << 60))
        self._moving: set[Place] = set()

    async def for_ever(self, act: Actor, pause: float) -> None:
        """Rounds of one actor; what a client gives up is counted, what a promise forbids is written down."""
        while True:
            try:
                await act()
            except (Lost, GivenUp) as exc:
                self._ledger.done[f"{act.__name__}: {type(exc).__name__.lower()}"] += 1
            await asyncio.sleep(self._dice.uniform(0, 2 * pause))

    async def push(self) -> None:
        """A new image, by a tag of its own or one that moves; every fourth is an index of two."""
        if len(self._ledger.living) > _MOST:
            return
        repository, writer = self._dice.choice(REPOSITORIES), next(self._names)
        if self._dice.random() < 0.25:
            children = [await self._image(repository, f"{writer}-{n}", None) for n in range(2)]
            data = make_index(
                [descriptor(child.data, child.media_type) for child in children], annotations={"n": str(writer)}
            )
            await self._publish(repository, data, INDEX, [], f"index-{writer}")
            self._ledger.done["indexes pushed"] += 1
            return
        await self._image(repository, str(writer), f"v{writer}")
        self._ledger.done["images pushed"] += 1

    async def retag(self) -> None:
        """Points a tag of this actor's at one image after the other."""
        stored = self._ledger.pick(self._dice)
        if stored is None:
            return
        tag = f"moving-{self._dice.randrange(5)}"
        if (stored.repository, tag) in self._moving:
            return
        self._moving.add((stored.repository, tag))
        try:
            await self._tag(stored, tag)
        finally:
            self._moving.discard((stored.repository, tag))

    async def mount(self) -> None:
        """Another repository's blobs, mounted, below a manifest of its own."""
        source = self._ledger.pick(self._dice)
        if source is None or source.media_type == INDEX:
            return
        repository = self._dice.choice([name for name in REPOSITORIES if name != source.repository])
        for digest, _ in source.blobs:
            origin = "" if self._dice.random() < 0.3 else f"&from={source.repository}"
            answer = await self._fleet.ask("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}{origin}")
            if answer.status == 202:
                if self._ledger.lives(source):
                    self._ledger.done["mounts that found nothing"] += 1
                raise GivenUp
            _demand(answer, 201)
        document = json.loads(source.data) | {"annotations": {"n": str(next(self._names))}}
        await self._publish(repository, json.dumps(document).encode(), MANIFEST, source.blobs, None)
        self._ledger.done["images mounted"] += 1

    async def delete(self) -> None:
        """A manifest, at times together with one of its blobs."""
        stored = self._ledger.pick(self._dice)
        if stored is None or (len(self._ledger.living) < _MOST // 4 and self._dice.random() < 0.7):
            return
        if self._named_by_an_index(stored) or not self._ledger.take(stored):
            return
        await self._fleet.ask("DELETE", f"/v2/{stored.repository}/manifests/{stored.digest}")
        self._ledger.done["manifests deleted"] += 1
        if stored.blobs and self._dice.random() < 0.5:
            digest, _ = self._dice.choice(stored.blobs)
            await self._fleet.ask("DELETE", f"/v2/{stored.repository}/blobs/{digest}")
            self._ledger.done["blobs deleted, or tried to"] += 1

    async def pull(self) -> None:
        """A whole image, by digest, every byte hashed."""
        stored = self._ledger.pick(self._dice)
        if stored is not None:
            await self.check(stored)
            self._ledger.done["images pulled"] += 1

    async def leave(self) -> None:
        """Begins an upload and never ends it."""
        data = self._dice.randbytes(self._dice.randrange(1, 2 * _LARGEST))
        repository = self._dice.choice(REPOSITORIES)
        location = _demand(await self._fleet.ask("POST", f"/v2/{repository}/blobs/uploads/"), 202).location
        headers = {"content-type": OCTETS}
        if self._dice.random() < 0.5:
            headers["content-range"] = f"0-{len(data) - 1}"
        await self._fleet.once("PATCH", location, headers, data)
        self._ledger.done["uploads abandoned"] += 1

    async def check(self, stored: Stored) -> None:
        """Pulls it right, or writes down what is wrong, unless it was deleted meanwhile."""
        wanted = [(f"/v2/{stored.repository}/manifests/{stored.digest}", stored.digest)]
        wanted += [(f"/v2/{stored.repository}/blobs/{digest}", digest) for digest, _ in stored.blobs]
        for path, digest in wanted:
            answer = await self._fleet.ask("GET", path)
            if answer.status == 200 and digest_of(answer.body) == digest:
                continue
            if not self._ledger.lives(stored):
                return
            self._ledger.accuse(f"GET {path} answered {answer.status} with {len(answer.body)} bytes: {stored.digest}")

    async def check_tag(self, repository: str, tag: str, digest: str) -> None:
        """The tag says what was last acknowledged, as long as that manifest lives."""
        answer = await self._fleet.ask("GET", f"/v2/{repository}/manifests/{tag}")
        if (repository, digest) in self._ledger.living and digest_of(answer.body) != digest:
            self._ledger.accuse(f"tag {repository}:{tag} answered {answer.status}, should be {digest}")

    def _named_by_an_index(self, stored: Stored) -> bool:
        """Deleting it would break an index by the client's own will: allowed, but then its children cannot be checked."""
        needle = stored.digest.encode()
        return any(other.media_type == INDEX and needle in other.data for other in self._ledger.living.values())

    async def _image(self, repository: str, name: str, tag: str | None) -> Stored:
        layers = self._dice.sample(self._shared, self._dice.randrange(3))
        layers.append(self._dice.randbytes(self._dice.randrange(1, _LARGEST)))
        image = make_image(*layers, config=json.dumps({"os": "linux", "n": name}).encode())
        for data in image.blobs:
            await self._blob(repository, data)
        blobs = [(digest_of(data), len(data)) for data in image.blobs]
        return await self._publish(repository, image.data, MANIFEST, blobs, tag)

    async def _blob(self, repository: str, data: bytes) -> None:
        """As docker (HEAD first, PATCH, PUT), as containerd (PUT), or in two chunks; again from the start where it fails."""
        digest = digest_of(data)
        for _ in range(8):
            if (await self._fleet.ask("HEAD", f"/v2/{repository}/blobs/{digest}")).status == 200:
                return
            try:
                if await self._uploaded(repository, data, digest):
                    self._ledger.done["bytes uploaded"] += len(data)
                    return
            except Lost:
                await asyncio.sleep(0.2)
        raise GivenUp

    async def _uploaded(self, repository: str, data: bytes, digest: str) -> bool:
        location = _demand(await self._fleet.ask("POST", f"/v2/{repository}/blobs/uploads/"), 202).location
        how, headers = self._dice.randrange(3), {"content-type": OCTETS}
        if how == 0:
            return (await self._finish(location, digest, data)).status == 201
        parts = [data] if how == 1 or len(data) < 2 else [data[: len(data) // 2], data[len(data) // 2 :]]
        at = 0
        for part in parts:
            chunk = headers if how == 1 else {**headers, "content-range": f"{at}-{at + len(part) - 1}"}
            answer = await self._fleet.once("PATCH", location, chunk, part)
            if answer.status != 202:
                return False
            location, at = answer.location, at + len(part)
        return (await self._finish(location, digest, None)).status == 201

    async def _finish(self, location: str, digest: str, data: bytes | None) -> Answer:
        target = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        return await self._fleet.once("PUT", target, {"content-type": OCTETS}, data)

    async def _publish(
        self, repository: str, data: bytes, media_type: str, blobs: Sequence[tuple[str, int]], tag: str | None
    ) -> Stored:
        stored = Stored(repository, digest_of(data), data, media_type, blobs)
        reference = tag or stored.digest
        headers = {"content-type": media_type}
        answer = await self._fleet.ask("PUT", f"/v2/{repository}/manifests/{reference}", headers, data)
        if answer.status != 201:
            self._ledger.done[f"manifests refused with {answer.status}"] += 1
            raise GivenUp
        self._ledger.add(stored)
        if tag:
            self._ledger.tags[repository, tag] = stored.digest
        return stored

    async def _tag(self, stored: Stored, tag: str) -> None:
        place = (stored.repository, tag)
        self._ledger.tags.pop(place, None)  # unknown until somebody says so
        answer = await self._fleet.ask(
            "PUT", f"/v2/{stored.repository}/manifests/{tag}", {"content-type": stored.media_type}, stored.data
        )
        if answer.status == 201:
            self._ledger.done["tags moved"] += 1
            self._ledger.tags[place] = stored.digest


def _demand(answer: Answer, status: int) -> Answer:
    if answer.status != status:
        raise GivenUp
    return answer
