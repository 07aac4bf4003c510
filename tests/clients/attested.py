"""An index as BuildKit pushes it: beside each image a manifest of attestations for no platform at all."""

import json
from pathlib import Path
from typing import Any, Final

from tests.services.images import CONFIG, INDEX, MANIFEST, TAG_ANNOTATION, Layout, digest

STATEMENT: Final = "application/vnd.in-toto+json"


def attest(layout: Layout) -> tuple[Layout, list[str]]:
    """Adds attestations to every image of an index's layout; returns it with its new index, and their digests."""
    index = json.loads(layout.blob(layout.digest))
    attestations = [_attestation(layout.folder, child["digest"]) for child in index["manifests"]]
    index["manifests"] += attestations
    top = _kept(layout.folder, INDEX, json.dumps(index, indent=2).encode())
    named = {"schemaVersion": 2, "manifests": [{**top, "annotations": {TAG_ANNOTATION: layout.tag}}]}
    (layout.folder / "index.json").write_text(json.dumps(named))
    return Layout(layout.folder, layout.tag, top["digest"], layout.layers), [one["digest"] for one in attestations]


def _attestation(folder: Path, subject: str) -> dict[str, Any]:
    statement = json.dumps({"_type": "https://in-toto.io/Statement/v0.1", "subject": subject}).encode()
    config = {
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(statement)]},
    }
    layer = _kept(folder, STATEMENT, statement) | {"annotations": {"in-toto.io/predicate-type": "https://slsa.dev/x"}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _kept(folder, CONFIG, json.dumps(config).encode()),
        "layers": [layer],
    }
    return {
        **_kept(folder, MANIFEST, json.dumps(manifest).encode()),
        "annotations": {
            "vnd.docker.reference.digest": subject,
            "vnd.docker.reference.type": "attestation-manifest",
        },
        "platform": {"architecture": "unknown", "os": "unknown"},
    }


def _kept(folder: Path, media_type: str, data: bytes) -> dict[str, Any]:
    named = digest(data)
    (folder / "blobs/sha256" / named.removeprefix("sha256:")).write_bytes(data)
    return {"mediaType": media_type, "digest": named, "size": len(data)}
