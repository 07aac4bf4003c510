"""A copy of the store is whole whatever happens while it is made: between any two requests, and on a live MinIO."""

import asyncio
import json
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import pytest

from app.oci.digests import digest_of
from app.oci.manifests import OCI_INDEX, OCI_MANIFEST
from app.oci.names import Name
from app.oci.references import Tag
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.listing import every
from app.registry.registry import Repository
from app.registry.settings import RegistrySettings
from app.transfer.backup.mirroring import Mirror
from storage import Driver
from storage.filesystem import FilesystemDriver
from storage.memory import MemoryDriver
from tests.services.client import encode
from tests.services.minio import MinioServer
from tests.services.pushing import Pusher
from tests.services.registry import RegistryServer, s3_store
from tests.transfer.copied import Here
from tests.transfer.mirrored import Interrupted, broken

APP: Final = Name("team/app")


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


class Site:
    """A registry in memory."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.bucket = Bucket(driver, RegistrySettings(), None, lambda _event, _fields: None)  # type: ignore[arg-type]
        self.repository = Repository(self.bucket, APP)

    async def image(self, text: str, tag: str | None = None, **fields: Any) -> bytes:
        blobs = [f"{text} {part}".encode() for part in ("config", "layer")]
        for data in blobs:
            await self.repository.uploads.put(digest_of(data), _chunks(data))
        config, layer = (_descriptor(data, "application/octet-stream") for data in blobs)
        body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer], **fields}
        return await self._put(encode(body), OCI_MANIFEST, tag)

    async def index(self, text: str, tag: str | None = None) -> bytes:
        """An index in an index, with a signature."""
        children = [_descriptor(await self.image(f"{text} {n}"), OCI_MANIFEST) for n in range(2)]
        inner = await self._put(encode(_index(children)), OCI_INDEX, None)
        outer = await self._put(encode(_index([_descriptor(inner, OCI_INDEX)])), OCI_INDEX, tag)
        await self.image(f"signature of {text}", subject=_descriptor(outer, OCI_INDEX))
        return outer

    async def _put(self, data: bytes, media_type: str, tag: str | None) -> bytes:
        tagged = [Tag(tag)] if tag else []
        await self.repository.manifests.put(data, media_type, digest=None, tagged=tagged, by=None)
        return data

    async def vanish(self) -> None:
        """Deletes every manifest, and collects all at once what nothing needs then."""
        async for entry in every(self.driver, keys.manifests(APP)):
            await self.repository.manifests.delete(keys.entry_of(entry.key, entry.size).digest)
        for prefix in (keys.links(APP), keys.HOLDERS, keys.DATA):
            await self.driver.delete_many([entry.key async for entry in every(self.driver, prefix)])
        self.bucket.places._known.clear()


def _index(children: list[dict[str, Any]]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}


async def _filled() -> Site:
    site = Site(MemoryDriver())
    await site.image("one", "v1")
    await site.index("two", "v2")
    return site


async def _mirrored(source: Any, target: Driver) -> Mirror:
    troubles: list[tuple[str, str]] = []
    mirror = Mirror(source, target, lambda key, trouble: troubles.append((key, trouble)))
    await mirror.run()
    assert troubles == []
    return mirror


async def _requests() -> int:
    """How many requests to the source a copy takes."""
    counted = Interrupted((await _filled()).driver)
    await _mirrored(counted, MemoryDriver())
    return counted.asked


async def test_a_copy_holds_everything_and_a_second_run_moves_nothing() -> None:
    site, target = await _filled(), MemoryDriver()
    first = (await _mirrored(site.driver, target)).done
    assert (first.tags, first.manifests, first.blobs, first.failed, first.gone) == (2, 6, 8, 0, 0)
    assert await broken(target) == []
    for prefix in (keys.REPOSITORIES, keys.HOLDERS, keys.DATA, keys.CATALOG):
        assert await _all(target, prefix) == await _all(site.driver, prefix)
    second = (await _mirrored(site.driver, target)).done
    assert (second.tags, second.manifests, second.blobs, second.bytes) == (0, 0, 0, 0)
    await site.image("three", "v3")
    third = (await _mirrored(site.driver, target)).done
    assert (third.tags, third.manifests, third.blobs) == (1, 1, 2)


async def _all(driver: Driver, prefix: str) -> set[str]:
    return {entry.key async for entry in every(driver, prefix)}


async def test_whatever_is_pushed_between_two_requests_the_copy_is_whole() -> None:
    for at in range(1, await _requests() + 1):
        site, target = await _filled(), MemoryDriver()

        async def push(site: Site = site) -> None:
            await site.index("new", "v1")
            await site.image("0 newer", "v0")
            await site.image("newest", "v9")

        await _mirrored(Interrupted(site.driver, at, push), target)
        assert await broken(target) == [], f"pushed before request {at}"


async def test_whatever_is_deleted_and_collected_between_two_requests_the_copy_is_whole() -> None:
    for at in range(1, await _requests() + 1):
        site, target = await _filled(), MemoryDriver()
        await _mirrored(Interrupted(site.driver, at, site.vanish), target)
        assert await broken(target) == [], f"deleted before request {at}"


async def test_a_run_that_is_killed_anywhere_leaves_a_whole_copy_and_is_finished_by_the_next() -> None:
    class Killed(Exception):
        pass

    async def kill() -> None:
        raise Killed

    counted = Interrupted(MemoryDriver())
    await _mirrored((await _filled()).driver, counted)  # type: ignore[arg-type]
    for at in range(1, counted.asked + 1):
        site, target = await _filled(), MemoryDriver()
        mirror = Mirror(site.driver, Interrupted(target, at, kill), lambda _key, _trouble: None)  # type: ignore[arg-type]
        with pytest.raises((Killed, BaseExceptionGroup)):
            await mirror.run()
        assert await broken(target) == [], f"killed before request {at}"
        await _mirrored(site.driver, target)
        assert await _all(target, keys.REPOSITORIES) == await _all(site.driver, keys.REPOSITORIES)


async def test_decayed_bytes_are_told_and_nothing_that_needs_them_is_copied() -> None:
    site, target = await _filled(), MemoryDriver()
    [layer] = [entry async for entry in every(site.driver, keys.links(APP, digest_of(b"one layer")))]
    await site.driver.put(keys.data(keys.copy_of(layer.key).uuid), b"one l\0yer")
    troubles: list[str] = []
    mirror = Mirror(site.driver, target, lambda key, _trouble: troubles.append(key))
    await mirror.run()
    assert layer.key in troubles
    assert keys.tag(APP, Tag("v1")) in troubles
    assert mirror.done.failed == len(troubles) == 3
    assert await broken(target) == []
    assert keys.tag(APP, Tag("v2")) in await _all(target, keys.tags(APP))


async def test_pruning_forgets_what_was_deleted_and_never_everything() -> None:
    site, target = await _filled(), MemoryDriver()
    await _mirrored(site.driver, target)
    await site.repository.tags.delete(Tag("v1"))
    mirror = await _mirrored(site.driver, target)
    await mirror.prune()
    assert await _all(target, keys.tags(APP)) == {keys.tag(APP, Tag("v2"))}
    assert await broken(target) == []
    empty = Mirror(MemoryDriver(), target, lambda _key, _trouble: None)
    await empty.prune()
    assert await _all(target, keys.tags(APP)) == {keys.tag(APP, Tag("v2"))}


class Churn:
    """Pushers, a deleter and a tagger on a live registry, until it is left."""

    def __init__(self, pusher: Pusher) -> None:
        self._pusher = pusher
        self._stop = Event()
        self.pushed = 0
        self._threads = [Thread(target=self._push, args=(n,)) for n in range(2)]
        self._threads += [Thread(target=self._delete), Thread(target=self._retag)]
        self.failures: list[Exception] = []

    def __enter__(self) -> "Churn":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait(self, pushed: int) -> None:
        """Until so many images were pushed, or somebody failed."""
        while self.pushed < pushed and not self.failures:
            time.sleep(0.02)

    def _rounds(self, work: Callable[[int], None]) -> None:
        number = 0
        while not self._stop.is_set():
            try:
                work(number)
            except (AssertionError, OSError, ValueError, KeyError) as exc:  # told to the test
                self.failures.append(exc)
                return
            number += 1

    def _push(self, thread: int) -> None:
        def one(number: int) -> None:
            name = f"live/{thread}/{number % 3}"
            if number % 3:
                self._pusher.image(name, f"v{number}", [20_000, 500], seed=f"{thread} {number}")
            else:
                platforms = {"linux/amd64": [3000], "linux/arm64": [200_000]}
                index = self._pusher.index(name, f"v{number}", platforms, seed=f"{thread} {number}")
                self._pusher.referrer(name, index)
            self.pushed += 1

        self._rounds(one)

    def _delete(self) -> None:
        def one(number: int) -> None:
            name = f"live/{number % 2}/{random.randrange(3)}"
            listed = self._pusher.request("GET", f"/v2/{name}/tags/list")
            tags = json.loads(listed.body).get("tags") if listed.status == 200 else None
            if tags:
                path = f"/v2/{name}/manifests/{random.choice(tags)}"
                found = self._pusher.request("HEAD", path, headers={"Accept": "*/*"})
                if found.status == 200:
                    self._pusher.request("DELETE", f"/v2/{name}/manifests/{found.headers['docker-content-digest']}")
            self._stop.wait(0.05)

        self._rounds(one)

    def _retag(self) -> None:
        def one(number: int) -> None:
            self._pusher.image("live/0/1", "latest", [100], seed=f"tag {number}")
            self._stop.wait(0.02)

        self._rounds(one)


@asynccontextmanager
async def _folder(path: Path) -> AsyncIterator[Driver]:
    driver = FilesystemDriver(path)
    await driver.start()
    yield driver
    await driver.close()


def _whole(path: Path) -> list[str]:
    async def look() -> list[str]:
        async with _folder(path) as driver:
            return await broken(driver)

    return asyncio.run(look())


@pytest.fixture
def live(minio: MinioServer, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Here]:
    store = s3_store(minio.endpoint, bucket, minio.access_key, minio.secret_key)
    with RegistryServer(tmp_path / "live", store) as server:
        yield Here(server, store, capsys)


@pytest.mark.minio
def test_a_live_bucket_is_backed_up_and_restored_into_an_empty_one(
    live: Here, minio: MinioServer, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    pusher = Pusher(live.server.url)
    kept = pusher.index("kept/app", "v1", {"linux/amd64": [100_000], "linux/arm64": [50_000]})
    with Churn(pusher) as churn:
        for _ in range(4):
            churn.wait(churn.pushed + 1)
            done = live.run("backup", "--to", str(copy), "--json")
            assert done.status == 0, done.stderr
            assert done.said["failed"] == 0
            assert _whole(copy) == []
        churn.wait(churn.pushed + 1)
    assert churn.failures == []
    assert live.run("backup", "--to", str(copy)).status == 0
    assert live.run("backup", "--to", str(copy), "--json").said["bytes"] == 0, "nothing is new"
    pusher.image("kept/app", "v2", [70_000])
    added = live.run("backup", "--to", str(copy), "--prune", "--json").said
    assert 70_000 <= added["bytes"] < 71_000
    assert added["pruned"] > 0
    empty = s3_store(minio.endpoint, f"restored-{secrets.token_hex(4)}", minio.access_key, minio.secret_key)
    _restored(live, copy, empty, tmp_path, kept.digest)


def _restored(live: Here, copy: Path, store: Mapping[str, str], tmp_path: Path, kept: str) -> None:
    """Brings the copy into an empty bucket and pulls everything that the live registry has."""
    config = tmp_path / "copy.yaml"
    config.write_text(json.dumps({"storage": {"driver": "filesystem", "filesystem": {"root": str(copy)}}}))
    restored = live.run("restore", "--from-config", str(config), **store)
    assert restored.status == 0, restored.stderr
    refused = live.run("restore", "--from", str(copy), **store)
    assert refused.status == 2
    assert "the store is not empty" in refused.stderr
    with RegistryServer(tmp_path / "restored-server", store) as server:
        again = Here(server, store, live.capsys)
        assert again.pulls("kept/app", "v1") == kept
        assert again.catalog() == live.catalog()
        pulled = 0
        for name in live.catalog():
            assert again.tags(name) == live.tags(name)
            for tag in live.tags(name):
                digest = live.pulls(name, tag)
                assert again.pulls(name, tag) == digest
                assert again.referrers(name, digest) == live.referrers(name, digest)
                pulled += 1
        assert pulled > 5
    verified = live.run("verify", **store)
    assert verified.status == 0, verified.stdout + verified.stderr
