"""Referrers of a manifest: end-12."""

from app.api.exchange import Exchange, Headers
from app.api.pagination import next_link
from app.oci.digests import parse_digest
from app.oci.manifests import OCI_INDEX
from app.registry.registry import Repository


async def get_referrers(exchange: Exchange, repository: Repository, reference: str) -> None:
    """end-12: an index of the manifests whose subject this is, which may be empty; never 404."""
    subject = parse_digest(reference)
    artifact_type = exchange.parameter("artifactType") or None
    last = exchange.parameter("last")
    page = await repository.referrers.list(subject, artifact_type, parse_digest(last) if last else None)
    headers: Headers = [(b"content-type", OCI_INDEX.encode())]
    if artifact_type:
        headers.append((b"oci-filters-applied", b"artifactType"))
    if page.next:
        path = f"/v2/{repository.name}/referrers/{subject}"
        headers += next_link(path, artifactType=artifact_type, last=page.next)
    await exchange.json(200, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page.descriptors}, headers)
