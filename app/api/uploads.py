"""Uploads: end-4, end-5, end-6, end-11, end-13, end-14."""

from urllib.parse import urlencode

from app.api.exchange import Exchange, Headers
from app.api.ranges import parse_chunk
from app.auth.access import Access, Action
from app.oci.digests import DEFAULT_ALGORITHM, parse_algorithm, parse_digest
from app.oci.errors import DigestInvalid, NameInvalid, RangeInvalid, SizeInvalid
from app.oci.names import Name, parse_name
from app.registry.blobs import Blob
from app.registry.registry import Repository
from app.registry.sessions import Session


async def post_upload(exchange: Exchange, repository: Repository, access: Access) -> None:
    """end-4, end-11: 202 with the Location of a new upload; 201 for a mount, or for a blob that came with the request."""
    uploads = repository.uploads  # refused where nothing can be pushed, and mounted neither
    if (text := exchange.parameter("mount")) is not None:
        blob = await _mount(exchange, repository, access, text)
        if blob is not None:
            return await _created(exchange, repository, blob)
    elif (text := exchange.parameter("digest")) is not None:
        digest = parse_digest(text)
        return await _created(exchange, repository, await uploads.put(digest, exchange.chunks()))
    algorithm = parse_algorithm(exchange.parameter("digest-algorithm") or DEFAULT_ALGORITHM)
    session = uploads.begin(algorithm)
    return await exchange.answer(202, _standing(exchange, repository, session))


async def patch_upload(exchange: Exchange, repository: Repository, upload_id: str) -> None:
    """end-5: 202 with the next Location; 416 for a chunk out of order; 404 BLOB_UPLOAD_UNKNOWN."""
    session = await _session(exchange, repository, upload_id)
    at, exactly = _chunk(exchange)
    try:
        session = await repository.uploads.append(session, exchange.chunks(exactly), at)
    except RangeInvalid as exc:
        raise await _told(exchange, repository, session, exc) from exc
    await exchange.answer(202, _standing(exchange, repository, session))


async def put_upload(exchange: Exchange, repository: Repository, upload_id: str) -> None:
    """end-6: 201; 400 DIGEST_INVALID; 416 for a last chunk out of order; 404 BLOB_UPLOAD_UNKNOWN."""
    session = await _session(exchange, repository, upload_id)
    text = exchange.parameter("digest")
    if text is None:
        raise DigestInvalid("the digest parameter is missing")
    digest = parse_digest(text)
    at, exactly = _chunk(exchange)
    try:
        blob = await repository.uploads.finish(session, digest, exchange.chunks(exactly), at)
    except RangeInvalid as exc:
        raise await _told(exchange, repository, session, exc) from exc
    await _created(exchange, repository, blob)


async def get_upload(exchange: Exchange, repository: Repository, upload_id: str) -> None:
    """end-13: 204 with the offset and the Location to go on from; 404 BLOB_UPLOAD_UNKNOWN."""
    session = await repository.uploads.status(await _session(exchange, repository, upload_id))
    await exchange.answer(204, _standing(exchange, repository, session))


async def delete_upload(exchange: Exchange, repository: Repository, upload_id: str) -> None:
    """end-14: 204; the upload is unknown from then on."""
    await repository.uploads.cancel(await _session(exchange, repository, upload_id))
    await exchange.answer(204, [])


async def _mount(exchange: Exchange, repository: Repository, access: Access, text: str) -> Blob | None:
    """A mount that cannot be is no error: the client uploads instead (specification, end-11)."""
    digest = parse_digest(text)
    origin = exchange.parameter("from")
    try:
        source = parse_name(origin) if origin else None
    except NameInvalid:
        return None

    def may_pull(name: Name) -> bool:
        return access.allows(exchange.caller, Action.PULL, name)

    return await repository.blobs.mount(digest, source, may_pull)


async def _session(exchange: Exchange, repository: Repository, upload_id: str) -> Session:
    token = exchange.parameter("_state") or ""
    return await repository.uploads.unseal(upload_id, token, exchange.caller.name)


def _chunk(exchange: Exchange) -> tuple[int | None, int | None]:
    """Where the body belongs, and how long it must be."""
    found = parse_chunk(exchange.header(b"content-range"))
    if found is None:
        return None, None
    start, last = found
    length = last - start + 1
    announced = exchange.content_length()
    if announced is not None and announced != length:
        raise SizeInvalid("Content-Range and Content-Length differ")
    return start, length


def _standing(exchange: Exchange, repository: Repository, session: Session) -> Headers:
    """Where an upload stands. The Location is relative: it holds behind any proxy, and no Host header can bend it."""
    state = urlencode({"_state": repository.uploads.seal(session, exchange.caller.name)})
    return [
        (b"location", f"/v2/{repository.name}/blobs/uploads/{session.id}?{state}".encode()),
        (b"range", b"0-%d" % max(0, session.offset - 1)),
        (b"docker-upload-uuid", session.id.encode()),
    ]


async def _told(exchange: Exchange, repository: Repository, session: Session, exc: RangeInvalid) -> RangeInvalid:
    """The same error, with the place to go on from."""
    now = await repository.uploads.status(session)
    headers = {name.decode(): value.decode() for name, value in _standing(exchange, repository, now)}
    return RangeInvalid(exc.message, detail={"offset": now.offset}, headers=headers)


async def _created(exchange: Exchange, repository: Repository, blob: Blob) -> None:
    headers: Headers = [
        (b"location", f"/v2/{repository.name}/blobs/{blob.digest}".encode()),
        (b"docker-content-digest", blob.digest.encode()),
    ]
    await exchange.answer(201, headers)
