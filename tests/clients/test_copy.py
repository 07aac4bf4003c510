"""What `edge-registry copy` brought, pulled by other people's programs: the same digests as at the source."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.engines import MakeClient
from tests.services.images import write_index
from tests.services.registry import RegistryServer, command, filesystem_store
from tests.services.upstreams import Distribution, need_distribution

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    with Distribution(need_distribution(request), tmp_path_factory.mktemp("source"), tls=True) as found:
        yield found


def test_skopeo_and_crane_see_the_digests_of_the_source(
    source: Distribution, tmp_path: Path, make_client: MakeClient, layers: list[dict[str, bytes]]
) -> None:
    layout = write_index(tmp_path / "layout", {"amd64": layers, "arm64": layers[1:]})
    digest = source.pusher.layout("team/app", layout, "v1")
    store = filesystem_store(tmp_path / "data")
    command("copy", f"{source.host}/team/app", "--ca", str(source.ca), "--to", "moved", settings=store)
    with RegistryServer(tmp_path / "server", store) as server:
        crane, skopeo = make_client("crane"), make_client("skopeo")
        image = f"{server.host}/moved/team/app:v1"
        assert crane.run("digest", "--insecure", image).strip() == digest
        crane.run("validate", "--insecure", "--remote", image)
        skopeo.run("copy", "--all", "--preserve-digests", "--src-tls-verify=false", f"docker://{image}", "oci:out:v1")
        [entry] = json.loads((skopeo.home / "out" / "index.json").read_text())["manifests"]
        assert entry["digest"] == digest
