"""Upload locations are signed: every replica accepts every other's, and nobody else makes one."""

import asyncio
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from app.oci.digests import Digest
from app.oci.errors import BlobUploadUnknown
from app.oci.names import MAX_LENGTH, Name
from app.registry import keys, sessions, signing
from app.registry.sessions import Session
from storage.memory import MemoryDriver
from tests.registry.conftest import HERE, THERE, Replica

CONTEXT = "upload\nid\nname\nowner"


async def test_two_replicas_that_start_at_once_accept_each_others_tokens(start: Callable[..., Replica]) -> None:
    replicas = [start(), start(), start()]
    await asyncio.gather(*(replica.bucket.signing.start() for replica in replicas))
    for signer in replicas:
        token = signer.bucket.signing.sign(b"payload", CONTEXT)
        for reader in replicas:
            assert await reader.bucket.signing.verify(token, CONTEXT) == b"payload"


async def test_a_key_made_right_after_a_look_is_waited_for(replica: Replica, start: Callable[..., Replica]) -> None:
    late = start()
    await replica.driver.put(f"{keys.SIGNING_KEYS}{'0' * 32}", b"s" * 32)
    await late.bucket.signing.start()
    token = late.bucket.signing.sign(b"payload", CONTEXT)
    assert await replica.bucket.signing.verify(token, CONTEXT) == b"payload"


async def test_keys_are_never_overwritten(replica: Replica, other: Replica) -> None:
    assert len(await replica.keys(keys.SIGNING_KEYS)) == 1
    assert not other.driver.places("put", keys.SIGNING_KEYS)


async def test_unknown_keys_cost_at_most_one_look_a_second(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "_LOOK_AGAIN", 0.3)
    code = urlsafe_b64encode(b"x" * 20).decode().rstrip("=")
    replica.driver.log.clear()
    began = time.monotonic()
    for turn in range(2):
        forged = [f"{turn:04x}{number:04x}.eA.{code}" for number in range(100)]
        found = await asyncio.gather(*(replica.bucket.signing.verify(token, CONTEXT) for token in forged))
        assert set(found) == {None}
    looks = len(replica.driver.places("list", keys.SIGNING_KEYS))
    assert 1 <= looks <= 1 + (time.monotonic() - began) / 0.3


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "a.b.c.d", "é.é.é", "0" * 8 + ".%%%.=", "\0.\0.\0", "." * 9])
async def test_garbage_is_no_token(replica: Replica, token: str) -> None:
    replica.driver.log.clear()
    assert await replica.bucket.signing.verify(token, CONTEXT) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000), letter=st.sampled_from("ABCabc019-_."))
def test_a_token_with_one_other_letter_is_refused_or_means_the_same(
    place: int, letter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "_LOOK_AGAIN", 0.0)

    async def check() -> None:
        signer = signing.Signing(MemoryDriver())
        await signer.start()
        token = signer.sign(b'{"started":1,"offset":12}', CONTEXT)
        at = place % len(token)
        bent = token[:at] + letter + token[at + 1 :]
        assert await signer.verify(bent, CONTEXT) in (None, b'{"started":1,"offset":12}')
        assert await signer.verify(token, CONTEXT + "x") is None

    asyncio.run(check())


def sealed(replica: Replica, session: Session, name: Name = HERE, owner: str | None = "ann") -> str:
    return sessions.seal(replica.bucket, session, name, owner)


async def test_a_session_comes_back_on_another_replica(replica: Replica, other: Replica) -> None:
    begun = sessions.begin("sha512")
    digest = Digest("sha512:" + "a" * 128)
    for session in (
        begun,
        begun.whole(digest, "f" * 32, 10**12),
        begun.whole(digest, None, 1),
        begun.at(0),
        begun.at(7),
    ):
        assert await sessions.unseal(other.bucket, session.id, sealed(replica, session), HERE, "ann") == session


@pytest.mark.parametrize(
    ("upload_id", "name", "owner"),
    [("0" * 32, HERE, "ann"), (None, THERE, "ann"), (None, HERE, "bob"), (None, HERE, None)],
)
async def test_a_location_is_good_for_its_upload_repository_and_owner_alone(
    replica: Replica, upload_id: str | None, name: Name, owner: str | None
) -> None:
    session = sessions.begin("sha256")
    token = sealed(replica, session)
    with pytest.raises(BlobUploadUnknown):
        await sessions.unseal(replica.bucket, upload_id or session.id, token, name, owner)


async def test_an_upload_ends_with_its_life_even_in_the_future(replica: Replica) -> None:
    now, life = int(time.time()), int(replica.bucket.lifetimes.upload)
    session = sessions.begin("sha256")
    for started, alive in ((now - life + 60, True), (now - life - 1, False), (now + 3600, False)):
        aged = replace(session, started=started)
        token = sealed(replica, aged)
        if alive:
            assert await sessions.unseal(replica.bucket, aged.id, token, HERE, "ann") == aged
        else:
            with pytest.raises(BlobUploadUnknown):
                await sessions.unseal(replica.bucket, aged.id, token, HERE, "ann")


async def test_the_longest_location_is_below_one_kilobyte(replica: Replica) -> None:
    name = Name("a" * MAX_LENGTH)
    session = sessions.begin("sha512").whole(Digest("sha512:" + "a" * 128), "f" * 32, 10**13)
    token = sealed(replica, session, name, "o" * 200)
    assert len(f"/v2/{name}/blobs/uploads/{session.id}?_state={token}") < 1000
