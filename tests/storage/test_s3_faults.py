"""The S3 driver behind a server that refuses, loses answers, cuts and hangs."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage import (
    Absent,
    AccessDenied,
    ConditionFailed,
    Corrupt,
    NotFound,
    OutcomeUnknown,
    StoreFull,
    Unavailable,
    Unsupported,
)
from storage.conformance import content, keys, read
from storage.s3 import S3Driver
from tests.services.minio import MinioServer
from tests.storage.s3_front import (
    Front,
    cuts_after,
    fails_late,
    hangs,
    loses_the_answer,
    loses_the_request,
    refuses,
)
from tests.storage.test_s3 import SCRATCH, settings

pytestmark = pytest.mark.minio

SLOW_DOWN = refuses(503, "SlowDown")
DENIED = refuses(403, "AccessDenied")


@pytest.fixture
async def front(minio: MinioServer) -> AsyncIterator[Front]:
    async with Front(minio.endpoint).running() as front:
        yield front


@pytest.fixture
async def driver(front: Front, minio: MinioServer, bucket: str) -> AsyncIterator[S3Driver]:
    driver = S3Driver(settings(minio, bucket, endpoint=front.endpoint))
    await driver.start()
    front.log.clear()
    yield driver
    await driver.close()


async def test_later_is_tried_again(driver: S3Driver, front: Front) -> None:
    front.fail("PUT", "/key", SLOW_DOWN, refuses(500, "InternalError"))
    front.fail("GET", "/key", SLOW_DOWN, loses_the_request)
    front.fail("GET", "list-type", SLOW_DOWN)
    front.fail("DELETE", "/key", SLOW_DOWN)
    await driver.put("key", b"1")
    assert (await driver.get("key")).data == b"1"
    front.fail("GET", "/key", SLOW_DOWN, loses_the_request)
    assert await read(driver, "key") == b"1"
    assert await keys(driver) == ["key"]
    await driver.delete("key")
    assert (front.count("PUT", "/key"), front.count("GET", "/key"), front.count("DELETE", "/key")) == (3, 6, 2)


async def test_a_read_that_never_succeeds_is_unavailable(driver: S3Driver, front: Front) -> None:
    await driver.put("key", b"1")
    front.fail("GET", "/key", *[SLOW_DOWN] * 8)
    with pytest.raises(Unavailable) as caught:
        await driver.get("key")
    assert not isinstance(caught.value, OutcomeUnknown)
    assert front.count("GET", "/key") == 8


async def test_a_write_without_a_definite_answer_is_unknown(driver: S3Driver, front: Front) -> None:
    front.fail("PUT", "/key", *[loses_the_answer] * 8)
    with pytest.raises(OutcomeUnknown):
        await driver.put("key", b"1")
    assert (await driver.get("key")).data == b"1"
    front.fail("DELETE", "/key", *[SLOW_DOWN] * 8)
    with pytest.raises(OutcomeUnknown):
        await driver.delete("key")


async def test_a_store_that_cannot_be_reached_did_nothing(minio: MinioServer, bucket: str) -> None:
    driver = S3Driver(settings(minio, bucket, endpoint="http://127.0.0.1:1"))
    try:
        with pytest.raises(Unavailable, match="cannot be reached") as caught:
            await driver.start()
        assert not isinstance(caught.value, OutcomeUnknown)
    finally:
        await driver.close()


async def test_the_operations_deadline_ends_a_request_that_hangs(driver: S3Driver, front: Front) -> None:
    until = asyncio.Event()
    front.fail("HEAD", "", hangs(until))
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable):
        await driver._client.call("HEAD", within=0.5)
    assert asyncio.get_running_loop().time() - began < 2
    until.set()


async def test_an_outage_spends_the_retries_once_not_per_request(driver: S3Driver, front: Front) -> None:
    driver._client._retries._limit = driver._client._retries._left = 5.0
    front.fail("GET", "/key", *[SLOW_DOWN] * 100)
    failed = await asyncio.gather(*(driver.get("key") for _ in range(20)), return_exceptions=True)
    assert all(isinstance(failure, Unavailable) for failure in failed)
    assert front.count("GET", "/key") == 25


async def test_a_create_whose_answer_was_lost_succeeds(driver: S3Driver, front: Front) -> None:
    front.fail("PUT", "/key", loses_the_answer)
    await driver.put("key", b"ours", condition=Absent())
    assert front.count("PUT", "/key") == 2
    assert (await driver.get("key")).data == b"ours"


async def test_a_create_that_another_won_meanwhile_is_not_ours(driver: S3Driver, front: Front) -> None:
    await driver.put("key", b"theirs")
    with pytest.raises(ConditionFailed):
        await driver.put("key", b"ours", condition=Absent())
    front.fail("PUT", "/key", loses_the_request)
    with pytest.raises(OutcomeUnknown):
        await driver.put("key", b"ours", condition=Absent())
    assert (await driver.get("key")).data == b"theirs"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (507, "XMinioStorageFull", StoreFull),
        (403, "XMinioAdminBucketQuotaExceeded", StoreFull),
        (409, "ConditionalRequestConflict", ConditionFailed),
        (412, "PreconditionFailed", ConditionFailed),
        (501, "NotImplemented", Unsupported),
        (404, "NoSuchKey", NotFound),
    ],
)
async def test_a_definite_refusal_is_not_repeated(
    driver: S3Driver, front: Front, status: int, code: str, expected: type[Exception]
) -> None:
    front.fail("PUT", "/key", refuses(status, code))
    with pytest.raises(expected):
        await driver.put("key", b"1")
    assert front.count("PUT", "/key") == 1


async def test_a_write_denied_because_its_folder_went_away_is_repeated(driver: S3Driver, front: Front) -> None:
    front.fail("PUT", "/folder/key", DENIED, DENIED)
    await driver.put("folder/key", b"1", condition=Absent())
    assert (await driver.get("folder/key")).data == b"1"
    assert front.count("PUT", "/folder/key") == 3


async def test_a_policy_that_denies_a_write_is_asked_three_times(driver: S3Driver, front: Front) -> None:
    front.fail("PUT", "/key", *[DENIED] * 3)
    with pytest.raises(AccessDenied):
        await driver.put("key", b"1")
    assert front.count("PUT", "/key") == 3


async def test_a_denied_read_and_a_wrong_signature_are_not_repeated(driver: S3Driver, front: Front) -> None:
    front.fail("GET", "/key", DENIED)
    front.fail("PUT", "/key", refuses(403, "SignatureDoesNotMatch"))
    with pytest.raises(AccessDenied):
        await driver.get("key")
    with pytest.raises(AccessDenied):
        await driver.put("key", b"1")
    assert (front.count("GET", "/key"), front.count("PUT", "/key")) == (1, 1)


async def test_a_read_that_is_denied_after_an_outage_is_denied(driver: S3Driver, front: Front) -> None:
    front.fail("GET", "/key", SLOW_DOWN, DENIED)
    with pytest.raises(AccessDenied):
        await driver.get("key")


async def test_denied_writes_leave_everybody_else_the_retries(driver: S3Driver, front: Front) -> None:
    driver._client._retries._limit = driver._client._retries._left = 5.0
    front.fail("PUT", "/key", *[DENIED] * 60)
    for _ in range(20):
        with pytest.raises(AccessDenied):
            await driver.put("key", b"1")
    front.fail("GET", "/other", *[SLOW_DOWN] * 4)
    with pytest.raises(NotFound):
        await driver.get("other")


async def test_a_denial_after_an_answer_was_lost_leaves_the_write_unknown(driver: S3Driver, front: Front) -> None:
    front.fail("PUT", "/key", loses_the_answer, *[DENIED] * 2)
    with pytest.raises(OutcomeUnknown):
        await driver.put("key", b"1")
    assert (await driver.get("key")).data == b"1"


@pytest.mark.parametrize("fault", [fails_late("InternalError"), loses_the_answer, loses_the_request, SLOW_DOWN])
async def test_a_completion_that_fails_once_is_repeated(driver: S3Driver, front: Front, fault: object) -> None:
    data = content(9 << 20)
    front.fail("POST", "uploadId=", fault)  # type: ignore[arg-type]
    writer = driver.create("data/key", SCRATCH)
    await writer.write(data)
    await writer.commit()
    assert await read(driver, "data/key") == data
    assert await keys(driver) == ["data/key"]
    assert front.count("POST", "uploadId=") == 2


async def test_a_completion_that_never_succeeds_is_unknown(driver: S3Driver, front: Front) -> None:
    front.fail("POST", "uploadId=", *[fails_late("InternalError")] * 8)
    writer = driver.create("data/key", SCRATCH)
    await writer.write(content(9 << 20))
    with pytest.raises(OutcomeUnknown):
        await writer.commit()
    await writer.abort()
    assert await keys(driver) == []


@pytest.mark.parametrize("fault", [SLOW_DOWN, loses_the_answer, loses_the_request])
async def test_a_part_that_fails_is_sent_again_whole(driver: S3Driver, front: Front, fault: object) -> None:
    data = content(17 << 20)
    front.fail("PUT", "partNumber=1", fault)  # type: ignore[arg-type]
    front.fail("PUT", "partNumber=2", fault)  # type: ignore[arg-type]
    writer = driver.create("data/key", SCRATCH)
    for at in range(0, len(data), 100_000):
        await writer.write(data[at : at + 100_000])
    await writer.commit()
    assert await read(driver, "data/key") == data


async def test_a_refused_part_fails_the_writer_and_leaves_nothing(driver: S3Driver, front: Front) -> None:
    free = driver._budget._free
    front.fail("PUT", "partNumber=", *[refuses(507, "XMinioStorageFull")] * 4)
    writer = driver.create("data/key", SCRATCH)

    async def write() -> None:
        for _ in range(60):
            await writer.write(bytes(1 << 20))

    with pytest.raises(StoreFull):
        await write()
    await writer.abort()
    await asyncio.sleep(0)
    assert driver._budget._free == free
    assert await keys(driver) == []


@pytest.mark.parametrize("start", [0, 1000])
async def test_a_read_that_is_cut_goes_on_with_a_range(driver: S3Driver, front: Front, start: int) -> None:
    data = content(3_000_000)
    await driver.put("key", data)
    front.fail("GET", "/key", cuts_after(1_000_000), cuts_after(500_000), cuts_after(0))
    assert await read(driver, "key", start) == data[start:]
    assert front.count("GET", "/key") == 4


async def test_a_read_that_is_cut_for_ever_is_unavailable(driver: S3Driver, front: Front) -> None:
    await driver.put("key", content(1_000_000))
    front.fail("GET", "/key", *[cuts_after(10)] * 20)
    with pytest.raises(Unavailable):
        await read(driver, "key")
    assert front.count("GET", "/key") <= 10


@pytest.mark.parametrize("change", ["replaced", "deleted"])
async def test_an_object_that_changes_while_it_is_read_is_corrupt(driver: S3Driver, front: Front, change: str) -> None:
    await driver.put("key", content(3_000_000))

    async def meanwhile() -> None:
        await (driver.delete("key") if change == "deleted" else driver.put("key", content(3_000_001)))

    front.fail("GET", "/key", cuts_after(1_000_000, meanwhile))
    with pytest.raises(Corrupt):
        await read(driver, "key")
