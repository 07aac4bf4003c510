"""What tests of `copy` share: a registry here, the command in this process, and a look at what came."""

import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.cli import command
from tests.services.client import digest_of
from tests.services.registry import RegistryServer

ACCEPT = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in ("oci.image.index.v1", "oci.image.manifest.v1", "docker.distribution.manifest.v2")
)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def said(self) -> Any:
        """Its JSON."""
        return json.loads(self.stdout)


@dataclass
class Here:
    """A running registry and the command `copy` on its store."""

    server: RegistryServer
    store: Mapping[str, str]
    capsys: pytest.CaptureFixture[str]

    def copy(self, *arguments: str, stdin: str = "", **settings: str) -> Ended:
        """Runs `edge-registry copy`."""
        return self.run("copy", *arguments, stdin=stdin, **settings)

    def plain(self, *arguments: str, **more: str) -> Ended:
        """The same from a source without TLS: the front answers nothing to those who try it."""
        return self.copy(*arguments, "--plain-http", **more)

    def run(self, *arguments: str, stdin: str = "", **settings: str) -> Ended:
        """Runs a command on the store, in this process."""
        with _own_settings({**self.store, **settings}) as patch:
            patch.setattr(sys, "argv", ["edge-registry", *arguments])
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            status = command._run()
        return Ended(status, *self.capsys.readouterr())

    def manifest(self, repository: str, reference: str) -> bytes | None:
        """A manifest as clients get it, checked against its digest; None for 404."""
        answer = self.server.request("GET", f"/v2/{repository}/manifests/{reference}", headers={"Accept": ACCEPT})
        if answer.status == 404:
            return None
        assert answer.status == 200, answer.body
        assert answer.headers["docker-content-digest"] == digest_of(answer.body)
        return answer.body

    def pulls(self, repository: str, reference: str) -> str:
        """Pulls an image whole, every platform of it; returns its digest."""
        data = self.manifest(repository, reference)
        assert data is not None, f"{repository}:{reference} is not here"
        document = json.loads(data)
        for child in document.get("manifests", []):
            assert self.pulls(repository, child["digest"]) == child["digest"]
        for part in [document["config"], *document["layers"]] if "layers" in document else []:
            answer = self.server.request("GET", f"/v2/{repository}/blobs/{part['digest']}")
            assert answer.status == 200, (repository, reference, part)
            assert digest_of(answer.body) == part["digest"]
        return digest_of(data)

    def has_blob(self, repository: str, digest: str) -> bool:
        return self.server.request("HEAD", f"/v2/{repository}/blobs/{digest}").status == 200

    def tags(self, repository: str) -> list[str]:
        answer = self.server.request("GET", f"/v2/{repository}/tags/list")
        return [] if answer.status == 404 else list(answer.json()["tags"])

    def referrers(self, repository: str, digest: str) -> list[str]:
        answer = self.server.request("GET", f"/v2/{repository}/referrers/{digest}")
        return [item["digest"] for item in answer.json()["manifests"]]

    def catalog(self) -> list[str]:
        return list(self.server.request("GET", "/v2/_catalog?n=1000").json()["repositories"])


@contextmanager
def _own_settings(settings: Mapping[str, str]) -> Iterator[pytest.MonkeyPatch]:
    root = logging.getLogger()
    kept = (root.handlers[:], root.level)
    with pytest.MonkeyPatch.context() as patch:
        for name in [
            name for name in os.environ if name.startswith(("EDGE_REGISTRY_", "REGISTRY_", "DOCKER_", "XDG_"))
        ]:
            patch.delenv(name)
        for name, value in settings.items():
            patch.setenv(name, value)
        yield patch
    root.handlers[:], root.level = kept


def kept_bytes(folder: Path) -> int:
    """Bytes of all blobs that a folder store keeps, linked or not."""
    return sum(file.stat().st_size for file in (folder / "data").glob("*")) if (folder / "data").exists() else 0
