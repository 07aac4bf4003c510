"""Manifests by tag or digest: end-3, end-7, end-9."""

from app.api.exchange import Exchange, Headers
from app.oci.digests import Digest
from app.oci.manifests import MAX_BYTES
from app.oci.references import parse_reference, parse_tag
from app.registry.keys import Entry
from app.registry.registry import Repository


async def head_manifest(exchange: Exchange, repository: Repository, reference: str) -> None:
    """end-3: digest, media type and size; 404 MANIFEST_UNKNOWN otherwise."""
    entry = await _stat(repository, reference)
    await exchange.head(200, [*_described(entry), (b"content-length", b"%d" % entry.size)])


async def get_manifest(exchange: Exchange, repository: Repository, reference: str) -> None:
    """end-3: the manifest, byte for byte, as the type with which it was pushed; 404 MANIFEST_UNKNOWN."""
    tag, digest = parse_reference(reference)
    if digest is not None:
        entry, data = await repository.manifests.get(digest)
    else:
        entry, data = await repository.manifests.get_tag(parse_tag(tag or ""))
    if exchange.header(b"if-none-match") == f'"{entry.digest}"':
        return await exchange.answer(304, _described(entry))
    return await exchange.answer(200, _described(entry), data)


async def put_manifest(exchange: Exchange, repository: Repository, reference: str) -> None:
    """end-7: 201; 400 MANIFEST_INVALID or DIGEST_INVALID; 404 MANIFEST_BLOB_UNKNOWN; 413 above 4 MiB."""
    tag, digest = parse_reference(reference)
    more = [parse_tag(text) for text in exchange.query("tag")] if digest else []
    data = await exchange.body(MAX_BYTES)
    published = await repository.manifests.put(
        data,
        exchange.header(b"content-type"),
        digest=digest,
        tagged=[tag] if tag else more,
        by=exchange.caller.name,
    )
    headers: Headers = [
        (b"location", f"/v2/{repository.name}/manifests/{published.digest}".encode()),
        (b"docker-content-digest", published.digest.encode()),
    ]
    if published.subject is not None:
        headers.append((b"oci-subject", published.subject.encode()))
    headers += [(b"oci-tag", text.encode()) for text in dict.fromkeys(more)]
    await exchange.answer(201, headers)


async def delete_manifest(exchange: Exchange, repository: Repository, reference: str) -> None:
    """end-9: a tag alone, or by digest the manifest, with which its tags die: 202; 404 MANIFEST_UNKNOWN."""
    tag, digest = parse_reference(reference)
    if digest is not None:
        await repository.manifests.delete(digest)
    elif tag is not None:
        await repository.tags.delete(tag)
    await exchange.answer(202, [])


async def _stat(repository: Repository, reference: str) -> Entry:
    tag, digest = parse_reference(reference)
    if digest is not None:
        return await repository.manifests.stat(Digest(digest))
    return await repository.manifests.stat_tag(parse_tag(tag or ""))


def _described(entry: Entry) -> Headers:
    digest = entry.digest.encode()
    return [
        (b"content-type", entry.media_type.encode()),
        (b"docker-content-digest", digest),
        (b"etag", b'"%s"' % digest),
    ]
