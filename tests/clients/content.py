"""What a registry holds, read back over HTTP and checked byte for byte."""

from typing import Any, Final

from tests.services.images import INDEX, MANIFEST, digest
from tests.services.registry import RegistryServer

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPT: Final = {"Accept": ", ".join((MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST))}


def manifest_of(server: RegistryServer, repository: str, reference: str) -> tuple[str, dict[str, Any]]:
    """The digest and the content of a manifest, which hashes to what the registry says."""
    answer = server.request("GET", f"/v2/{repository}/manifests/{reference}", headers=ACCEPT)
    assert answer.status == 200, answer.body
    assert answer.headers["docker-content-digest"] == digest(answer.body)
    content = answer.json()
    assert answer.headers["content-type"] == content.get("mediaType", MANIFEST)
    return digest(answer.body), content


def check_whole(server: RegistryServer, repository: str, reference: str) -> str:
    """Reads a manifest and all below it, each blob hashed and of the announced size; returns the manifest's digest."""
    named, content = manifest_of(server, repository, reference)
    for child in content.get("manifests", []):
        assert check_whole(server, repository, child["digest"]) == child["digest"]
    for blob in [content["config"], *content["layers"]] if "layers" in content else []:
        answer = server.request("GET", f"/v2/{repository}/blobs/{blob['digest']}")
        assert (answer.status, len(answer.body)) == (200, blob["size"])
        assert digest(answer.body) == blob["digest"]
    return named


def tags_of(server: RegistryServer, repository: str) -> list[str]:
    """The tags of a repository, as listed; none where there is no such repository."""
    answer = server.request("GET", f"/v2/{repository}/tags/list")
    assert answer.status in {200, 404}, answer.body
    return list(answer.json().get("tags") or [])


def is_there(server: RegistryServer, repository: str, reference: str) -> bool:
    """Whether a manifest can be had."""
    answer = server.request("HEAD", f"/v2/{repository}/manifests/{reference}", headers=ACCEPT)
    assert answer.status in {200, 404}, answer.status
    return answer.status == 200
