"""A real API server takes the objects of the chart that no scenario has, under strict validation."""

import pytest
import yaml

from tests.k8s.rendering import Chart, Rendered, need_helm
from tests.k8s.test_chart import EVERYTHING
from tests.services.cluster import Cluster
from tests.services.cluster.programs import built_folder

pytestmark = pytest.mark.cluster
NAMESPACE = "optional"
OPTIONAL = {
    "Certificate",
    "HTTPRoute",
    "Ingress",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PrometheusRule",
    "ServiceMonitor",
}


@pytest.fixture(scope="module")
def text(request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The chart with nearly all that it can be asked for, and a cluster that knows these kinds."""
    cluster.kubectl("apply", "--server-side", "-f", str(built_folder() / "crds"))
    cluster.wait("crd", "condition=Established", "--all")
    cluster.kubectl("create", "namespace", NAMESPACE)
    chart = Chart(need_helm(request, tmp_path_factory.mktemp("helm")))
    return chart.text(EVERYTHING, namespace=NAMESPACE)


def test_the_api_server_takes_every_optional_object(cluster: Cluster, text: str) -> None:
    rendered = Rendered(text)
    assert set(rendered.kinds()) >= OPTIONAL
    said = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
    assert said.count("(server dry run)") == len(rendered.objects)


def test_a_misspelt_field_of_an_optional_object_is_refused(cluster: Cluster, text: str) -> None:
    for found in Rendered(text).objects:
        if found["kind"] not in OPTIONAL:
            continue
        done = cluster.attempt(
            *("apply", "--dry-run=server", "--validate=strict", "-f", "-"),
            stdin=yaml.safe_dump({**found, "spec": {**found["spec"], "misspelt": 1}}),
        )
        assert done.returncode != 0, found["kind"]
        assert "misspelt" in done.stderr, found["kind"]
