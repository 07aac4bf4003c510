"""The S3 driver passes the suite on a real MinIO."""

import asyncio
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import minio as sdk
import pytest
from pydantic import SecretStr

from app.tls.authority import make_certificates
from storage import AccessDenied, NoStore, NotFound, Unavailable, s3, s3_writer
from storage.budget import ByteBudget
from storage.conformance import SCRATCH, DriverConformance, content, keys, read
from storage.s3 import S3Driver
from storage.s3_writer import S3Writer
from storage.settings import S3Settings
from tests.services.minio import MinioServer

pytestmark = pytest.mark.minio


def settings(minio: MinioServer, bucket: str, **given: object) -> S3Settings:
    """What connects a driver to the tests' MinIO."""
    fields = {
        "endpoint": minio.endpoint,
        "bucket": bucket,
        "access_key": minio.access_key,
        "secret_key": minio.secret_key,
        "buffer_bytes": 48 << 20,
    }
    return S3Settings.model_validate(fields | given)


class TestS3(DriverConformance):
    @pytest.fixture
    async def driver(self, minio: MinioServer, bucket: str) -> AsyncIterator[S3Driver]:
        driver = S3Driver(settings(minio, bucket))
        await driver.start()
        yield driver
        await driver.close()

    @pytest.fixture
    async def other(self, minio: MinioServer, bucket: str) -> AsyncIterator[S3Driver]:
        driver = S3Driver(settings(minio, bucket))
        await driver.start()
        yield driver
        await driver.close()


async def test_a_flat_folder_is_paged_whole_however_its_names_begin(driver: S3Driver) -> None:
    """What the registry pages lies flat in one folder."""
    names = sorted(
        f"flat/{name}" for name in ("a", "a+b", "a,b", "a,b-c", "a-b", "a-b+c", "a-b-c", "a0", "aa", "b", "b-a")
    )
    for name in [*names, "flat.b/x", "flat-c"]:
        await driver.put(name, b"")
    for limit in (1, 2, 3, 5, 11, 1000):
        seen: list[str] = []
        more = True
        while more:
            page = await driver.list("flat/", after=seen[-1] if seen else "", limit=limit)
            seen += [entry.key for entry in page.entries]
            more = page.more
        assert seen == names


@pytest.fixture
async def driver(minio: MinioServer, bucket: str) -> AsyncIterator[S3Driver]:
    driver = S3Driver(settings(minio, bucket))
    await driver.start()
    yield driver
    await driver.close()


def sdk_client(minio: MinioServer) -> sdk.Minio:
    return sdk.Minio(minio.address, access_key=minio.access_key, secret_key=minio.secret_key, secure=False)


def fetched(url: str) -> tuple[int, bytes, str]:
    """Status, body and Content-Disposition of a plain GET."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers.get("Content-Disposition", "")
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read(), ""


async def test_the_probe_finds_everything_right_on_minio(driver: S3Driver) -> None:
    found = await driver.probe()
    assert [finding.name for finding in found.findings if not finding.ok] == []
    assert (found.conditional_put, found.fences, found.list_after_write) == (True, True, True)
    assert abs(found.clock_skew) < 5


async def test_the_probe_sees_a_store_that_ignores_conditions_and_fences(
    driver: S3Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = driver.put

    async def careless(key: str, data: bytes, **_: object) -> None:
        await honest(key, data)

    monkeypatch.setattr(driver, "put", careless)
    found = await driver.probe()
    assert (found.conditional_put, found.fences) == (False, False)
    assert {finding.name for finding in found.findings if not finding.ok} == {"conditional put", "stale signatures"}
    assert await keys(driver) == []


async def test_the_probe_sees_a_store_that_deletes_in_bulk_after_the_fence(
    driver: S3Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = driver.delete_many

    async def careless(keys: list[str], **_: object) -> None:
        await honest(keys)

    monkeypatch.setattr(driver, "delete_many", careless)
    assert not (await driver.probe()).fences
    assert await keys(driver) == []


async def test_a_presigned_url_needs_no_credentials_and_ends(driver: S3Driver) -> None:
    await driver.put("data/a+b", b"bytes")
    url = await driver.presign("data/a+b", lifetime=1, filename="x y.bin")
    assert url is not None
    status, body, disposition = await asyncio.to_thread(fetched, url)
    assert (status, body, disposition) == (200, b"bytes", 'attachment; filename="x y.bin"')
    assert (await asyncio.to_thread(fetched, url.replace("a%2Bb", "other")))[0] == 403
    deadline = time.monotonic() + 10
    while (status := (await asyncio.to_thread(fetched, url))[0]) == 200 and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    assert status == 403


async def test_a_presigned_url_names_the_public_endpoint(minio: MinioServer, bucket: str) -> None:
    driver = S3Driver(settings(minio, bucket, public_endpoint="https://cdn.example"))
    url = await driver.presign("data/key", lifetime=60)
    assert url is not None
    assert url.startswith(f"https://cdn.example/{bucket}/data/key?X-Amz-")


async def test_wrong_keys_are_access_denied_in_a_line_without_them(minio: MinioServer, bucket: str) -> None:
    for given in ({"secret_key": "hush-hush"}, {"access_key": "nobody", "secret_key": "hush-hush"}):
        driver = S3Driver(settings(minio, bucket, **given))
        try:
            with pytest.raises(AccessDenied) as caught:
                await driver.start()
        finally:
            await driver.close()
        assert "hush" not in str(caught.value)
        assert "\n" not in str(caught.value)


async def test_a_bucket_that_is_not_there_is_no_store_unless_it_may_be_made(minio: MinioServer) -> None:
    name = f"new-{secrets.token_hex(6)}"
    absent = S3Driver(settings(minio, name))
    with pytest.raises(NoStore, match=name):
        await absent.start()
    await absent.close()
    made = [S3Driver(settings(minio, name, create_bucket=True)) for _ in range(3)]
    await asyncio.gather(*(driver.start() for driver in made))
    await made[0].put("key", b"1")
    await made[1].delete("key")
    for driver in made:
        await driver.close()
    await asyncio.to_thread(sdk_client(minio).remove_bucket, name)


async def test_a_bucket_that_goes_away_is_no_missing_key(driver: S3Driver, bucket: str, minio: MinioServer) -> None:
    client = sdk_client(minio)
    await asyncio.to_thread(client.remove_bucket, bucket)
    try:
        for request in (driver.get("key"), driver.list(""), driver.put("key", b""), driver.ready()):
            with pytest.raises(NoStore):
                await request
    finally:
        await asyncio.to_thread(client.make_bucket, bucket)


@pytest.mark.parametrize("end", ["abort", "discard", "commit"])
async def test_no_multipart_upload_is_left(driver: S3Driver, end: str) -> None:
    writer = driver.create("data/key", SCRATCH)
    await writer.write(content(9 << 20))
    if end == "discard":
        state = await writer.suspend()
        await driver.discard(SCRATCH)
        upload = state["upload"]
    else:
        assert isinstance(writer, S3Writer)
        await (writer.abort() if end == "abort" else writer.commit())
        upload = writer._upload
    with pytest.raises(NotFound):
        await driver._client.call("GET", "data/key", {"uploadId": upload or ""})  # ListParts
    assert await keys(driver, SCRATCH) == []


async def test_parts_grow_so_that_ten_thousand_hold_289_gib(driver: S3Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    early = s3_writer.EARLY_PARTS
    assert early * s3_writer.PART + (10_000 - early) * s3_writer.LATE_PART >= 289 << 30
    assert s3_writer.PART >= 5 << 20
    monkeypatch.setattr(s3_writer, "EARLY_PARTS", 2)
    monkeypatch.setattr(s3_writer, "PART", 5 << 20)
    monkeypatch.setattr(s3_writer, "LATE_PART", 7 << 20)
    data = content(20 << 20)
    writer = driver.create("data/key", SCRATCH)
    await writer.write(data[: 12 << 20])
    state = await writer.suspend()
    resumed = driver.resume("data/key", SCRATCH, state)
    await resumed.write(data[12 << 20 :])
    assert isinstance(resumed, S3Writer)
    await resumed.commit()
    assert [size for _, _, size in sorted(resumed._parts)] == [5 << 20, 5 << 20, 7 << 20, 3 << 20]
    assert await read(driver, "data/key") == data


async def test_a_small_object_is_one_put(driver: S3Driver) -> None:
    writer = driver.create("data/key", SCRATCH)
    await writer.write(content((8 << 20) - 1))
    await writer.commit()
    assert isinstance(writer, S3Writer)
    assert writer._upload is None
    assert (await driver.stat("data/key")).version.count("-") == 0


async def test_a_copy_above_the_limit_goes_by_parts(driver: S3Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_COPY_WHOLE", 6 << 20)
    monkeypatch.setattr(s3, "_COPY_PART", 5 << 20)
    data = content(12 << 20)
    await driver.put("from", data)
    await driver.copy("from", "to")
    assert await read(driver, "to") == data
    assert (await driver.stat("to")).version.rstrip('"').endswith("-3")
    assert await keys(driver) == ["from", "to"]


async def test_a_part_cancelled_before_it_began_gives_its_memory_back(driver: S3Driver) -> None:
    free = driver._budget._free
    for size in (8 << 20, 20 << 20):
        writer = driver.create("data/key", SCRATCH)
        await writer.write(content(size))
        await writer.abort()
        await asyncio.sleep(0)
        assert driver._budget._free == free


async def test_a_fast_writer_passes_forty_slow_ones(
    minio: MinioServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_writer, "_PATIENCE", 0.05)
    driver = S3Driver(settings(minio, bucket))
    driver._budget = ByteBudget(16 << 20)
    await driver.start()
    stop = asyncio.Event()

    async def slow(number: int) -> bytes:
        writer, data = driver.create(f"data/{number}", f"uploads/{number}/"), b""
        await writer.write(content(380 << 10))
        data += content(380 << 10)
        while not stop.is_set():
            await asyncio.sleep(0.05)
            await writer.write(b"drop" * 256)
            data += b"drop" * 256
        await writer.commit()
        return data

    writers = [asyncio.create_task(slow(number)) for number in range(40)]
    fast = driver.create("data/fast", "uploads/fast/")
    async with asyncio.timeout(30):
        for _ in range(40):
            await fast.write(bytes(1 << 20))
        await fast.commit()
    stop.set()
    written = await asyncio.gather(*writers)
    assert (await driver.stat("data/fast")).size == 40 << 20
    for number, data in enumerate(written):
        assert await read(driver, f"data/{number}") == data
    assert await keys(driver, "uploads/") == []
    assert driver._budget.take(16 << 20)
    await driver.close()


async def test_a_store_whose_certificate_is_not_trusted_is_named_as_such(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        settings = S3Settings(endpoint=f"https://127.0.0.1:{port}", access_key="a", secret_key=SecretStr("b"))
        driver = S3Driver(settings)
        with pytest.raises(Unavailable, match="certificate cannot be trusted"):
            await driver.start()
        await driver.close()
