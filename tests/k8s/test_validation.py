"""A real API server takes every rendered manifest under strict validation, with the optional objects' definitions."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.services.clients import CHECKOUT
from tests.services.cluster import Cluster
from tests.services.cluster.programs import built_folder

pytestmark = pytest.mark.cluster
MANIFESTS = sorted(path for folder in ("rendered", "examples") for path in (CHECKOUT / "k8s" / folder).glob("*.yaml"))


@pytest.fixture(scope="module")
def definitions(cluster: Cluster) -> Iterator[None]:
    """The optional objects of the chart, known to the cluster."""
    folder = str(built_folder() / "crds")
    cluster.kubectl("apply", "--server-side", "-f", folder)
    cluster.wait("crd", "condition=Established", "--all")
    yield
    cluster.kubectl("delete", "-f", folder)


@pytest.fixture(scope="module")
def namespaces(cluster: Cluster) -> Iterator[None]:
    """The namespaces that the objects of all manifests are put into: a dry run makes none."""
    objects = [one for manifest in MANIFESTS for one in documents(manifest)]
    names = sorted({found for one in objects if (found := one["metadata"].get("namespace"))})
    for name in names:
        cluster.kubectl("create", "namespace", name)
    yield
    cluster.kubectl("delete", "namespace", *names)


def documents(manifest: Path) -> list[dict[str, dict[str, str]]]:
    return [one for one in yaml.safe_load_all(manifest.read_text()) if one]


def test_there_is_a_manifest_for_every_scenario() -> None:
    names = {path.stem for path in MANIFESTS}
    assert names >= {"edge-storage", "k3s-private", "caching", "google-cache"}


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.usefixtures("definitions", "namespaces")
def test_the_api_server_takes_the_manifest(cluster: Cluster, manifest: Path) -> None:
    said = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(manifest))
    assert said.count("(server dry run)") == len(documents(manifest))


def test_a_misspelt_field_is_refused(cluster: Cluster) -> None:
    text = (CHECKOUT / "k8s/rendered/edge-storage.yaml").read_text()
    assert "containerPort" in text
    done = cluster.attempt(
        *("apply", "--dry-run=server", "--validate=strict", "-f", "-"),
        stdin=text.replace("containerPort", "containerport"),
    )
    assert done.returncode != 0
    assert "containerport" in done.stderr
