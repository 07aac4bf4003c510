import pytest

from tests.services.app import Running
from tests.services.client import Client, digest_of, noise

DATA = noise(2000)
WHOLE = [
    "bytes=", "bytes=-", "bytes=0-1,3-4", "bytes=a-b", "bytes=1", "chunks=0-1", "0-1", "bytes = 0-1",
    "bytes=0x1-5", "bytes=-1-5", "bytes=99999999999999999999999-", "bytes=²-3", "bytes=0-1;", "bytes=0-1, ",
]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=500-1499", 500, 1500),
        ("bytes=500-", 500, 2000),
        ("bytes=-500", 1500, 2000),
        ("bytes=1500-5000", 1500, 2000),
        ("bytes=0-0", 0, 1),
        ("bytes=1999-", 1999, 2000),
        ("bytes=0-", 0, 2000),
        ("bytes=-5000", 0, 2000),
        ("bytes=0-9999999999999999999", 0, 2000),
    ],
)
async def test_a_range_is_206(api: Client, asked: str, start: int, end: int) -> None:
    for algorithm in ("sha256", "sha512"):
        digest = await api.push_blob("a", DATA, algorithm)
        answer = (await api.get(f"/v2/a/blobs/{digest}", range=asked)).expect(206)
        assert answer.body == DATA[start:end]
        assert answer.header("content-range") == f"bytes {start}-{end - 1}/2000"
        assert answer.header("content-length") == str(end - start)
        assert answer.header("docker-content-digest") == digest


@pytest.mark.parametrize("asked", ["bytes=2000-", "bytes=5000-10000", "bytes=-0", "bytes=500-0"])
async def test_a_range_beyond_the_end_is_416(api: Client, asked: str) -> None:
    digest = await api.push_blob("a", DATA)
    answer = (await api.get(f"/v2/a/blobs/{digest}", range=asked)).expect(416)
    assert answer.header("content-range") == "bytes */2000"


@pytest.mark.parametrize("asked", WHOLE)
async def test_what_is_no_single_range_gets_the_whole_blob(light: Running, asked: str) -> None:
    digest = await light.client.push_blob("a", DATA)
    answer = (await light.client.get(f"/v2/a/blobs/{digest}", range=asked)).expect(200)
    assert answer.body == DATA
    assert answer.header("content-range") is None


async def test_any_range_of_an_empty_blob_is_416(light: Running) -> None:
    digest = await light.client.push_blob("a", b"")
    for asked in ("bytes=0-", "bytes=0-0", "bytes=-1"):
        (await light.client.get(f"/v2/a/blobs/{digest}", range=asked)).expect(416)
    (await light.client.get(f"/v2/a/blobs/{digest}")).expect(200)


async def test_if_range_decides_whether_the_rest_is_enough(light: Running) -> None:
    digest = await light.client.push_blob("a", DATA)
    target = f"/v2/a/blobs/{digest}"
    same = await light.client.get(target, range="bytes=10-", if_range=f'"{digest}"')
    assert same.expect(206).body == DATA[10:]
    other = await light.client.get(target, range="bytes=10-", if_range=f'"{digest_of(b"")}"')
    assert other.expect(200).body == DATA
