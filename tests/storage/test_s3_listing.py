"""Pages on a real MinIO, which loses keys when it is asked plainly."""

import secrets
from collections.abc import AsyncIterator
from itertools import accumulate

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from storage.conformance import keys, put_all
from storage.s3 import S3Driver
from tests.services.minio import MinioServer
from tests.storage.s3_front import Front
from tests.storage.test_s3 import settings as connected

pytestmark = pytest.mark.minio

LIMITS = (1, 2, 3, 5, 8, 20, 1000)

segments = st.sampled_from(("a", "a!", "a-", "a-b", "a.", "a0", "a~", "b", "b-"))
paths = st.lists(segments, min_size=1, max_size=4).map("/".join)
crowds = st.builds(lambda folder, size: [f"{folder}/{number:02}" for number in range(size)], paths, st.integers(8, 14))


def folders(key: str) -> list[str]:
    """`a/`, `a/b/` of `a/b/c`."""
    return list(accumulate(f"{segment}/" for segment in key.split("/")[:-1]))


def consistent(names: list[str]) -> list[str]:
    """In byte order, without those that are a folder of another."""
    taken = {folder[:-1] for name in names for folder in folders(name)}
    return sorted(set(names) - taken)


trees = st.builds(
    lambda lonely, crowded: consistent([*lonely, *(name for crowd in crowded for name in crowd)]),
    st.lists(paths, min_size=1, max_size=12),
    st.lists(crowds, max_size=3),
)
on_one_server = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
async def driver(minio: MinioServer, bucket: str) -> AsyncIterator[S3Driver]:
    driver = S3Driver(connected(minio, bucket))
    await driver.start()
    yield driver
    await driver.close()


async def planted(driver: S3Driver, tree: list[str]) -> list[str]:
    """The tree's keys below a folder that no other example has."""
    root = f"{secrets.token_hex(8)}/"
    names = [root + name for name in tree]
    await put_all(driver, names)
    return names


@on_one_server
@given(tree=trees)
async def test_pages_of_every_size_hold_every_key_once(driver: S3Driver, tree: list[str]) -> None:
    names = await planted(driver, tree)
    root = folders(names[0])[0]
    for limit in LIMITS:
        seen, more = [], True
        while more:
            page = await driver.list(root, after=seen[-1] if seen else "", limit=limit)
            assert len(page.entries) <= limit
            seen += [entry.key for entry in page.entries]
            more = page.more
            assert more == (len(seen) < len(names)), (seen[-1:], limit)
        assert seen == names


@on_one_server
@given(tree=trees, data=st.data())
async def test_a_page_after_any_marker_is_right_whatever_the_prefix(
    driver: S3Driver, tree: list[str], data: st.DataObject
) -> None:
    names = await planted(driver, tree)
    root = len(folders(names[0])[0])
    markers = {marker for name in names for folder in folders(name) for marker in (name, folder, folder[:-1])}
    for marker in sorted(markers):
        after = marker + data.draw(st.sampled_from(("", "!", "-", "0", "~", "a/a")))
        prefix = after[: data.draw(st.integers(root, max(root, len(after))))]
        limit = data.draw(st.sampled_from(LIMITS))
        page = await driver.list(prefix, after=after, limit=limit)
        rest = [name for name in names if name.startswith(prefix) and name > after]
        assert ([entry.key for entry in page.entries], page.more) == (rest[:limit], len(rest) > limit)


@pytest.mark.parametrize("limit", [1, 2])
async def test_a_key_that_is_the_prefix_does_not_hide_longer_ones(driver: S3Driver, limit: int) -> None:
    await put_all(driver, ["tags/v1", "tags/v1-rc", "tags/v1.0"])
    page = await driver.list("tags/v1", limit=limit)
    assert ([entry.key for entry in page.entries], page.more) == (["tags/v1", "tags/v1-rc"][:limit], True)


async def test_a_page_that_ends_with_its_folder_says_that_others_follow(driver: S3Driver) -> None:
    await put_all(driver, ["c/a/1", "c/a/2", "c/a0", "c/b"])
    page = await driver.list("c/", after="c/a/1", limit=1)
    assert ([entry.key for entry in page.entries], page.more) == (["c/a/2"], True)
    assert await keys(driver, "c/", after="c/a/2", limit=1) == ["c/a0"]
    page = await driver.list("c/", after="c/a/2", limit=2)
    assert ([entry.key for entry in page.entries], page.more) == (["c/a0", "c/b"], False)


@pytest.mark.parametrize(
    ("prefix", "after", "limit", "requests"),
    [
        ("c/", "", 10, 1),
        ("c/a/", "c/a/1", 10, 1),  # the prefix's own folder
        ("c/", "c/a", 10, 1),
        ("c/a/", "c/b", 10, 1),  # outside the prefix
        ("c/", "c/a/1", 1, 1),  # full before the folder ends
        ("c/", "c/a/1", 10, 3),
        ("", "c/a/1", 10, 5),
    ],
)
async def test_a_page_costs_one_request_unless_the_marker_lies_deeper(
    minio: MinioServer, bucket: str, prefix: str, after: str, limit: int, requests: int
) -> None:
    async with Front(minio.endpoint).running() as front:
        driver = S3Driver(connected(minio, bucket, endpoint=front.endpoint))
        await driver.start()
        await put_all(driver, ["c/a/1", "c/a/2", "c/a/3", "c/b/1"])
        before = front.count("GET", "list-type=2")
        await driver.list(prefix, after=after, limit=limit)
        await driver.close()
    assert front.count("GET", "list-type=2") - before == requests


async def test_what_is_no_key_reaches_no_request(minio: MinioServer, bucket: str) -> None:
    driver = S3Driver(connected(minio, bucket, endpoint="http://127.0.0.1:1"))
    for key in ("../outside", ".tmp", "good/../../outside", "/etc/passwd", "a//b"):
        for action in (driver.get(key), driver.put(key, b""), driver.delete(key), driver.delete_many([key])):
            with pytest.raises(ValueError, match="is not a key"):
                await action
        with pytest.raises(ValueError, match="is not a key"):
            driver.create(key, "uploads/x/")
        with pytest.raises(ValueError, match="slash"):
            driver.create("good", key)
        with pytest.raises(ValueError, match="slash"):
            await driver.discard(key)
    with pytest.raises(ValueError, match="prefix"):
        await driver.list("a//")
