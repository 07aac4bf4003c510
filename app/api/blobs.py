"""Blobs by digest: end-2, end-10."""

from app.api.exchange import Exchange, Headers
from app.api.ranges import parse_range
from app.oci.digests import Digest, parse_digest
from app.registry.blobs import Blob
from app.registry.registry import Repository


async def head_blob(exchange: Exchange, repository: Repository, reference: str) -> None:
    """end-2: whether the blob is here, and its size; 404 BLOB_UNKNOWN otherwise."""
    blob = await repository.blobs.stat(parse_digest(reference))
    await exchange.head(200, [*_described(blob.digest), (b"content-length", b"%d" % blob.size)])


async def get_blob(exchange: Exchange, repository: Repository, reference: str) -> None:
    """end-2: the blob's bytes (200), a range of them (206), or a redirect to the store (307); 404 BLOB_UNKNOWN."""
    blob = await repository.blobs.sought(parse_digest(reference))
    etag = f'"{blob.digest}"'
    if exchange.header(b"if-none-match") == etag:
        return await exchange.answer(304, [(b"etag", etag.encode())])
    if (url := await repository.blobs.presign(blob)) is not None:
        return await exchange.answer(307, [(b"location", url.encode()), *_described(blob.digest)])
    asked = exchange.header(b"range") if exchange.header(b"if-range") in (None, etag) else None
    found = parse_range(asked, blob.size)
    return await _send(exchange, repository, blob, found)


async def delete_blob(exchange: Exchange, repository: Repository, reference: str) -> None:
    """end-10: 202; 404 BLOB_UNKNOWN; 405 DENIED while a manifest or a push needs it."""
    await repository.blobs.delete(parse_digest(reference))
    await exchange.answer(202, [])


async def _send(exchange: Exchange, repository: Repository, blob: Blob, found: tuple[int, int] | None) -> None:
    start, end = found or (0, blob.size)
    headers = [*_described(blob.digest), (b"content-length", b"%d" % (end - start))]
    if found:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, blob.size)))
    async with repository.blobs.open(blob, start, end if found else None) as reader:
        await exchange.stream(206 if found else 200, headers, aiter(reader))


def _described(digest: Digest) -> Headers:
    text = digest.encode()
    return [
        (b"content-type", b"application/octet-stream"),
        (b"docker-content-digest", text),
        (b"etag", b'"%s"' % text),
        (b"accept-ranges", b"bytes"),
    ]
