"""Uploads: any request of any upload may reach any replica, the same bytes are kept once, and races end well."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from app.oci.digests import Digest, digest_of
from app.oci.errors import BlobUploadUnknown, DigestInvalid, RangeInvalid
from app.oci.names import Name
from app.registry import keys
from app.registry.publishing import linked
from app.registry.sessions import Session
from storage.memory import MemoryDriver
from tests.registry.conftest import HERE, THERE, Replica, stream

DATA = hashlib.shake_256(b"upload").digest(300_000)
DIGEST = digest_of(DATA)


async def passed(session: Session, replica: Replica, other: Replica, name: Name = HERE) -> Session:
    """The session as `other` understands the Location that `replica` gave."""
    token = replica.repository(name).uploads.seal(session, None)
    return await other.repository(name).uploads.unseal(session.id, token, None)


async def chunked(replicas: list[Replica], *chunks: bytes) -> Session:
    """Sends chunks, each to the next replica."""
    session = replicas[0].repository().uploads.begin("sha256")
    for turn, chunk in enumerate(chunks):
        before, here = replicas[(turn - 1) % len(replicas)], replicas[turn % len(replicas)]
        session = await passed(session, before, here)
        session = await here.repository().uploads.append(session, stream(chunk), session.offset)
    return session


async def test_begin_and_a_streamed_patch_write_nothing_but_the_bytes(replica: Replica) -> None:
    before = await replica.keys("")
    uploads = replica.repository().uploads
    session = uploads.begin("sha256")
    assert await replica.keys("") == before
    session = await uploads.append(session, stream(DATA[:7], DATA[7:]), None)
    (data,) = set(await replica.keys("")) - set(before)
    assert data.startswith("data/")
    blob = await uploads.finish(session, DIGEST, stream(), None)
    assert keys.data(blob.copy.uuid) == data
    assert await replica.read(DIGEST) == DATA


async def test_a_streamed_upload_is_finished_by_another_replica(replica: Replica, other: Replica) -> None:
    session = await replica.repository().uploads.append(
        replica.repository().uploads.begin("sha256"), stream(DATA), None
    )
    there = await passed(session, replica, other)
    await other.repository().uploads.finish(there, DIGEST, stream(), None)
    assert await replica.read(DIGEST) == DATA
    again = await replica.repository().uploads.finish(session, DIGEST, stream(), None)
    assert again.digest == DIGEST


@pytest.mark.parametrize("ahead", [0, 3, 890])
async def test_a_replica_whose_clock_is_behind_goes_on_with_an_upload(
    replica: Replica, other: Replica, ahead: int
) -> None:
    begun = replica.repository().uploads.begin("sha256")
    session = replace(begun, started=begun.started + ahead)
    there = await passed(session, replica, other)
    await other.repository().uploads.finish(there, DIGEST, stream(DATA), None)
    assert await replica.read(DIGEST) == DATA


async def test_a_wrong_digest_is_refused_and_links_nothing(replica: Replica) -> None:
    uploads = replica.repository().uploads
    wrong = digest_of(b"other")
    session = await uploads.append(uploads.begin("sha256"), stream(DATA), None)
    for finish in (uploads.finish(session, wrong, stream(), None), uploads.put(wrong, stream(DATA))):
        with pytest.raises(DigestInvalid):
            await finish
    assert await replica.keys("repositories/") == []
    assert await replica.keys("blobs/") == []
    await uploads.finish(session, DIGEST, stream(), None)


async def test_a_copy_has_one_digest(replica: Replica) -> None:
    """A collector finds the links of a copy by its digest: bytes that get a second one get a second name."""
    uploads = replica.repository().uploads
    session = await uploads.append(uploads.begin("sha256"), stream(DATA), None)
    digests = [digest_of(DATA), digest_of(DATA, "sha512")]
    copies = [(await uploads.finish(session, digest, stream(), None)).copy for digest in digests]
    assert copies[0] != copies[1]
    for digest, copy in zip(digests, copies, strict=True):
        assert [keys.copy_of(key) for key in await replica.keys(keys.links(HERE, digest))] == [copy]
        assert await replica.read(digest) == DATA


async def test_an_upload_begun_for_sha256_may_end_as_sha512(replica: Replica) -> None:
    uploads = replica.repository().uploads
    session = await uploads.append(uploads.begin("sha256"), stream(DATA), None)
    wrong = digest_of(b"other", "sha512")
    with pytest.raises(DigestInvalid):
        await uploads.finish(session, wrong, stream(), None)
    right = digest_of(DATA, "sha512")
    await uploads.finish(session, right, stream(), None)
    assert await replica.read(right) == DATA


@pytest.mark.parametrize("way", ["one request", "patch"])
async def test_the_same_bytes_in_a_second_repository_are_one_object_and_two_links(replica: Replica, way: str) -> None:
    await replica.push(DATA)
    uploads = replica.repository(THERE).uploads
    if way == "patch":
        session = await uploads.append(uploads.begin("sha256"), stream(DATA), None)
        await uploads.finish(session, DIGEST, stream(), None)
    else:
        await uploads.put(DIGEST, stream(DATA))
    assert len(await replica.keys("data/")) == 1
    assert await linked(replica.bucket, HERE, DIGEST) == await linked(replica.bucket, THERE, DIGEST)
    assert await replica.read(DIGEST, THERE) == DATA


async def test_a_push_that_could_share_still_must_bring_the_bytes(replica: Replica) -> None:
    await replica.push(DATA)
    with pytest.raises(DigestInvalid):
        await replica.repository(THERE).uploads.put(DIGEST, stream(DATA[:-1]))
    assert await linked(replica.bucket, THERE, DIGEST) == []


async def test_a_derived_key_without_its_link_breaks_no_push(replica: Replica) -> None:
    ghost = keys.Copy(keys.fresh(), len(DATA))
    await replica.driver.put(keys.holder(DIGEST, ghost, THERE), b"")
    await replica.push(DATA)
    assert await replica.read(DIGEST) == DATA
    assert await replica.repository(Name("third")).blobs.mount(DIGEST, THERE, lambda _: True) is None
    assert await replica.repository(Name("third")).blobs.mount(DIGEST, None, lambda _: True) is not None


async def test_a_shared_copy_that_dies_between_patch_and_put_asks_for_the_bytes_again(replica: Replica) -> None:
    await replica.push(DATA)
    uploads = replica.repository(THERE).uploads
    session = await uploads.append(uploads.begin("sha256"), stream(DATA), None)
    assert session.uuid is None
    (copy,) = await linked(replica.bucket, HERE, DIGEST)
    await replica.driver.put(keys.tombstone(copy, keys.EVERYWHERE), b"")
    with pytest.raises(BlobUploadUnknown):
        await uploads.finish(session, DIGEST, stream(), None)
    await uploads.put(DIGEST, stream(DATA))
    await replica.driver.delete(keys.data(copy.uuid))
    assert await replica.read(DIGEST, THERE) == DATA


async def test_many_push_the_same_blob_at_once(replica: Replica, other: Replica) -> None:
    names = [HERE, THERE]
    await asyncio.gather(*((replica, other)[turn % 2].push(DATA, names[turn // 2 % 2]) for turn in range(12)))
    for name in names:
        assert await replica.read(DIGEST, name) == DATA


@pytest.mark.parametrize("right", [True, False])
async def test_an_upload_that_moves_between_replicas_is_read_back(
    replica: Replica, other: Replica, right: bool
) -> None:
    session = await chunked([replica, other], DATA[:1000], DATA[1000:2000], DATA[2000:])
    assert session.offset == len(DATA)
    third = await passed(session, replica, other)
    finish = other.repository().uploads.finish
    if right:
        await finish(third, DIGEST, stream(), None)
        assert await replica.read(DIGEST) == DATA
        assert (await finish(third, DIGEST, stream(), None)).digest == DIGEST
    else:
        with pytest.raises(DigestInvalid):
            await finish(third, digest_of(b"other"), stream(), None)
        assert await replica.keys("repositories/") == []
        assert await replica.keys("uploads/") == []


async def test_an_upload_that_stays_is_not_read_back(replica: Replica) -> None:
    session = await chunked([replica], DATA[:1000], DATA[1000:])
    await replica.repository().uploads.finish(session, DIGEST, stream(), None)
    assert not replica.driver.places("open", "data/")
    with pytest.raises(DigestInvalid):
        await replica.repository().uploads.finish(session, digest_of(b"other"), stream(), None)


async def test_a_wrong_digest_at_the_end_of_chunks_leaves_nothing(replica: Replica) -> None:
    session = await chunked([replica], DATA[:1000], DATA[1000:])
    with pytest.raises(DigestInvalid):
        await replica.repository().uploads.finish(session, digest_of(b"other"), stream(), None)
    assert [key for key in await replica.keys("") if not key.startswith("upkeep/keys/")] == []


@pytest.mark.parametrize("at", [0, 999, 1001, 5000])
async def test_a_chunk_out_of_order_is_416_and_changes_nothing(replica: Replica, other: Replica, at: int) -> None:
    session = await chunked([replica], DATA[:1000])
    with pytest.raises(RangeInvalid) as caught:
        await other.repository().uploads.append(session, stream(b"x"), at)
    assert caught.value.status == 416
    assert (await other.repository().uploads.status(session)).offset == 1000
    session = await other.repository().uploads.append(session, stream(DATA[1000:]), 1000)
    await other.repository().uploads.finish(session, DIGEST, stream(), None)


async def test_the_first_chunk_must_begin_at_zero(replica: Replica) -> None:
    uploads = replica.repository().uploads
    before = await replica.keys("")
    with pytest.raises(RangeInvalid):
        await uploads.append(uploads.begin("sha256"), stream(b"x"), 5)
    assert await replica.keys("") == before


@pytest.mark.parametrize("done", [b"", DATA[:1000]])
async def test_a_chunk_raced_by_two_replicas_has_one_winner(replica: Replica, other: Replica, done: bytes) -> None:
    session = await chunked([replica], done) if done else replica.repository().uploads.begin("sha256")
    at = len(done)
    gates = [asyncio.Event(), asyncio.Event()]

    async def slow(number: int) -> AsyncIterator[bytes]:
        gates[number].set()
        await gates[1 - number].wait()  # neither ends before the other has begun or was refused
        yield bytes([number]) * 500

    async def attempt(number: int) -> Session:
        try:
            return await (replica, other)[number].repository().uploads.append(session, slow(number), at)
        finally:
            gates[number].set()

    results = await asyncio.gather(attempt(0), attempt(1), return_exceptions=True)
    winners = [number for number, result in enumerate(results) if isinstance(result, Session)]
    losers = [result for result in results if isinstance(result, RangeInvalid)]
    assert (len(winners), len(losers)) == (1, 1), results
    data = done + bytes([winners[0]]) * 500
    (session,) = [result for result in results if isinstance(result, Session)]
    digest = digest_of(data)
    await other.repository().uploads.finish(session, digest, stream(), None)
    assert await replica.read(digest) == data


async def test_a_chunk_that_breaks_off_can_be_sent_again(replica: Replica, other: Replica) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA[:500]
        raise ConnectionResetError

    session = replica.repository().uploads.begin("sha256")
    with pytest.raises(ConnectionResetError):
        await replica.repository().uploads.append(session, broken(), 0)
    session = await other.repository().uploads.append(session, stream(DATA[:1000]), 0)
    with pytest.raises(ConnectionResetError):
        await replica.repository().uploads.append(session, broken(), 1000)
    assert (await other.repository().uploads.status(session)).offset == 1000
    session = await replica.repository().uploads.append(session, stream(DATA[1000:]), 1000)
    await other.repository().uploads.finish(session, DIGEST, stream(), None)
    assert await other.read(DIGEST) == DATA


@pytest.mark.parametrize("mixed", ["chunk after stream", "stream after chunk", "last bytes with the put"])
async def test_streams_and_chunks_may_be_mixed(replica: Replica, other: Replica, mixed: str) -> None:
    uploads, there = replica.repository().uploads, other.repository().uploads
    session = uploads.begin("sha256")
    first_at, second_at = {"chunk after stream": (None, 1000), "stream after chunk": (0, None)}.get(mixed, (None, None))
    session = await uploads.append(session, stream(DATA[:1000]), first_at)
    if mixed != "last bytes with the put":
        session = await there.append(session, stream(DATA[1000:]), second_at)
        await uploads.finish(session, DIGEST, stream(), None)
    else:
        await there.finish(session, DIGEST, stream(DATA[1000:]), None)
    assert await replica.read(DIGEST) == DATA


async def test_a_cancelled_upload_is_unknown_and_leaves_nothing(replica: Replica, other: Replica) -> None:
    session = await chunked([replica, other], DATA[:1000], DATA[1000:])
    await other.repository().uploads.cancel(session)
    assert await replica.keys("uploads/") == []
    for uploads in (replica.repository().uploads, other.repository().uploads):
        with pytest.raises(BlobUploadUnknown):
            await uploads.status(session)
        with pytest.raises(BlobUploadUnknown):
            await uploads.append(session, stream(b"x"), len(DATA))
        with pytest.raises(BlobUploadUnknown):
            await uploads.finish(session, DIGEST, stream(), None)


async def test_a_link_is_never_there_before_its_bytes(replica: Replica) -> None:
    seen: list[int] = []

    async def look() -> None:
        seen.append(len(await replica.keys("data/")))

    replica.driver.before("put", keys.links(HERE, DIGEST), look)
    await replica.push(DATA)
    assert seen == [1]
    assert replica.driver.place("put", keys.holders(DIGEST)) < replica.driver.place("put", keys.links(HERE, DIGEST))


async def test_the_end_of_an_upload_costs_two_requests_however_often_it_is_repeated(replica: Replica) -> None:
    uploads = replica.repository().uploads
    session = await uploads.append(uploads.begin("sha256"), stream(DATA), None)
    for _ in range(2):
        replica.driver.log.clear()
        await uploads.finish(session, DIGEST, stream(), None)
        assert [action for action, _ in replica.driver.log] == ["put", "put"]


async def test_an_unknown_upload_state_is_unknown(replica: Replica) -> None:
    session = replica.repository().uploads.begin("sha256").at(10)
    uploads = replica.repository().uploads
    for request in (uploads.status(session), uploads.finish(session, DIGEST, stream(b"x"), None)):
        with pytest.raises(BlobUploadUnknown):
            await request


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 5000), max_size=5).map(sorted),
    plan=st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=7, max_size=7),
    wrong=st.booleans(),
    with_put=st.booleans(),
)
def test_however_an_upload_is_cut_and_routed_it_is_its_bytes_or_refused(
    start: Callable[..., Replica],
    cuts: list[int],
    plan: list[tuple[int, bool]],
    wrong: bool,
    with_put: bool,
) -> None:
    data = DATA[:5000]
    edges = [0, *cuts, 5000]
    chunks = [data[begin:end] for begin, end in itertools.pairwise(edges)]

    async def upload() -> None:
        shelf = MemoryDriver()
        replicas = [start(), start()]
        for replica in replicas:
            replica.driver._driver = shelf
        session = replicas[0].repository().uploads.begin("sha256")
        for chunk, (where, ranged) in zip(chunks[: -1 if with_put else None], plan, strict=False):
            at = session.offset if ranged else None
            session = await replicas[where].repository().uploads.append(session, stream(chunk), at)
        digest: Digest = digest_of(b"wrong") if wrong else digest_of(data)
        last = stream(chunks[-1]) if with_put and chunks[-1] else stream()
        finish = replicas[plan[-1][0]].repository().uploads.finish
        if wrong:
            with pytest.raises(DigestInvalid):
                await finish(session, digest, last, None)
            assert await linked(replicas[0].bucket, HERE, digest) == []
        else:
            await finish(session, digest, last, None)
            assert await replicas[0].read(digest) == data

    asyncio.run(upload())
