"""The scenarios whose store is a folder, on a real cluster, by the commands of k8s/README.md: installed, used, gone again."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.k8s import podman
from tests.k8s.scenario import WORKLOAD, Scenario, make_folder
from tests.k8s.traces import Traces, await_nothing_left, told_files
from tests.services.clients import CHECKOUT
from tests.services.cluster import Cluster, configuration
from tests.services.registry import Credentials, RegistryServer, filesystem_store

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("registry_image")]


def test_the_private_registry_tells_its_nodes_where_it_is_and_takes_that_back(
    cluster: Cluster, before: Traces, hello: str, large: str, tmp_path: Path
) -> None:
    scenario = Scenario(cluster, tmp_path, "k3s-private")
    name, service = "container-registry.local", "edge-registry.edge-registry.svc"
    folders = {"nodeSetup": {"folders": ["/etc/containerd"]}}
    prepare_private(scenario)
    scenario.install(folders)
    scenario.test()
    hosts = cluster.node.etc / "hosts"
    cluster.await_that("the node knows the name", lambda: name in hosts.read_text(), 120)

    # The NodePort from another machine; what `localhost` means is known on the node alone.
    scenario.push(hello, f"{cluster.address}:31113/from/outside:1")
    scenario.push(hello, "localhost:31113/hello:latest", cluster.node)
    scenario.make_pull_secret("localhost:31113", f"{name}:5000", f"{cluster.address}:31113")
    scenario.run_workload("localhost:31113/hello:latest")
    scenario.run_workload(f"{name}:5000/hello:latest", "by-name")
    scenario.run_workload("localhost:31113/from/outside:1", "from-outside")
    scenario.run_refused("localhost:31113/hello:latest")
    assert scenario.ask(f"https://{service}:5000/v2/") == 401
    scenario.push(large, "localhost:31113/large:1", cluster.node)
    scenario.run_through_a_kill("localhost:31113/large:1")

    scenario.kubectl("delete", "service", "edge-registry")
    moved = {"service": {"clusterIP": "10.96.0.77"}, "config": {"http": {"workers": 2}}}
    scenario.install(folders | moved, verb="upgrade")
    cluster.await_that("the node follows the Service", lambda: "10.96.0.77" in hosts.read_text(), 120)

    scenario.install({"nodeSetup": {**folders["nodeSetup"], "mode": "remove"}} | moved, verb="upgrade")
    cluster.kubectl("-n", "edge-registry-nodes", "rollout", "status", "daemonset/edge-registry-nodes", "--timeout=120s")
    assert told_files(cluster) == before.files
    scenario.uninstall()
    cluster.kubectl("delete", "namespace", "edge-registry", "edge-registry-nodes")
    cluster.node.run("rm", "-r", "/srv/edge-registry")
    await_nothing_left(cluster, before)


@pytest.fixture
def k3s_folders(cluster: Cluster) -> Iterator[None]:
    """The folders that k3s has; its containerd's folder of hosts is that of the node's containerd."""
    hosts = "/var/lib/rancher/k3s/agent/etc/containerd/certs.d"
    cluster.node.run("mkdir", "-p", "/etc/rancher/k3s", hosts)
    cluster.node.run("mount", "--bind", configuration.CERTS, hosts)
    yield
    cluster.node.run("umount", hosts)
    cluster.node.run("rm", "-r", "/etc/rancher", "/var/lib/rancher")


def test_the_private_registry_is_installed_on_k3s_by_kubectl_alone_too(
    cluster: Cluster, k3s_folders: None, before: Traces, hello: str, tmp_path: Path
) -> None:
    scenario = Scenario(cluster, tmp_path, "k3s-private")
    prepare_private(scenario)
    scenario.apply()
    nodes = ("-n", "edge-registry-nodes", "rollout", "status", "daemonset/edge-registry-nodes", "--timeout=120s")
    cluster.kubectl(*nodes)
    assert "container-registry.local:5000" in (cluster.node.etc / "rancher/k3s/registries.yaml").read_text()
    # kube-proxy takes up a Service within a second or two.
    knock = ("bash", "-c", "</dev/tcp/127.0.0.1/31113")
    cluster.await_that("the NodePort answers", lambda: cluster.node.attempt(*knock).returncode == 0)
    scenario.push(hello, "localhost:31113/hello:latest", cluster.node)
    scenario.make_pull_secret("localhost:31113", "container-registry.local:5000")
    scenario.kubectl("apply", "-f", "-", stdin=WORKLOAD)
    scenario.kubectl("rollout", "status", "deployment/registry-test", "--timeout=120s")
    scenario.run_workload("container-registry.local:5000/hello:latest", "by-name")

    cluster.kubectl("apply", "-f", str(CHECKOUT / "k8s/rendered/k3s-private.nodes-removed.yaml"))
    cluster.kubectl(*nodes)
    cluster.kubectl("delete", "-f", str(scenario.manifests))
    cluster.kubectl("delete", "namespace", "edge-registry", "edge-registry-nodes")
    cluster.node.run("rm", "-r", "/srv/edge-registry")
    await_nothing_left(cluster, before)


def prepare_private(scenario: Scenario) -> None:
    """What comes before the installation of k3s-private."""
    make_folder(scenario.cluster.node, "edge-registry")
    scenario.make_namespace()
    scenario.make_users()
    names = ("container-registry.local", "localhost", "127.0.0.1", "edge-registry.edge-registry.svc")
    scenario.make_certificates(*names, scenario.cluster.address)
    scenario.make_namespace("edge-registry-nodes")
    kubectl, space = scenario.cluster.kubectl, "edge-registry-nodes"
    kubectl("label", "namespace", space, "pod-security.kubernetes.io/enforce=privileged")
    kubectl("-n", space, "create", "configmap", "edge-registry-ca", f"--from-file={scenario.ca}")


@pytest.fixture
def docker_hub(tmp_path: Path, hello: str) -> Iterator[RegistryServer]:
    """Stands in for Docker Hub: a registry on this machine with `library/hello:1`, which everybody may pull."""
    user = Credentials("hub", secrets.token_urlsafe(12))
    settings = {"EDGE_REGISTRY_HTTP__HOST": "0.0.0.0", "EDGE_REGISTRY_AUTH__ANONYMOUS": "pull"}
    store = filesystem_store(tmp_path / "hub/data")
    with RegistryServer(tmp_path / "hub", store, users=user, settings=settings) as server:
        yield server


def test_the_cache_serves_what_it_has_while_the_uplink_is_gone_and_takes_pushes_next_door(
    cluster: Cluster, before: Traces, docker_hub: RegistryServer, hello: str, large: str, tmp_path: Path
) -> None:
    scenario = Scenario(cluster, tmp_path, "caching")
    assert docker_hub.credentials is not None
    podman.push(tmp_path / "hub/podman", hello, f"{docker_hub.host}/library/hello:1", docker_hub.credentials, None)
    url = f"http://{cluster.outside}:{docker_hub.port}"
    make_folder(cluster.node, "edge-cache")
    scenario.make_namespace()
    scenario.make_users()
    scenario.install({"proxy": {"upstreams": [{"name": "docker.io", "url": url, "tag_ttl": "1s"}]}})
    scenario.test()

    with pytest.raises(AssertionError, match="read-only"):
        scenario.push(hello, f"{cluster.address}:32000/team/hello:1")
    scenario.run_workload("localhost:32000/hello:1", "cached")
    docker_hub.stop()
    forget(cluster, "localhost:32000/hello:1")
    scenario.run_workload("localhost:32000/hello:1", "offline")

    host = f"{cluster.address}:32001"
    scenario.push(hello, f"{host}/team/hello:1")
    scenario.make_pull_secret("localhost:32001", host)
    scenario.run_workload("localhost:32001/team/hello:1")
    scenario.run_workload("localhost:32000/team/hello:1", "read-by-all")
    scenario.run_refused("localhost:32001/team/hello:1")
    assert scenario.ask("http://edge-registry.edge-cache.svc:32000/v2/") == 200
    assert scenario.ask("http://edge-registry.edge-cache.svc:32001/v2/") == 401
    scenario.push(large, f"{host}/team/large:1")
    scenario.run_through_a_kill("localhost:32001/team/large:1")

    scenario.uninstall()
    cluster.kubectl("delete", "namespace", "edge-cache")
    cluster.node.run("rm", "-r", "/srv/edge-cache")
    await_nothing_left(cluster, before)
    docker_hub.start()


def forget(cluster: Cluster, image: str) -> None:
    """The node has the image no more, nor its layers."""
    listed = json.loads(cluster.kubectl("get", "pods", "-A", "-o", "json"))["items"]
    for pod in listed:
        if any(container["image"] == image for container in pod["spec"]["containers"]):
            space, name = pod["metadata"]["namespace"], pod["metadata"]["labels"]["app"]
            cluster.kubectl("-n", space, "delete", "deployment", name)
            cluster.wait("pod", "delete", "-n", space, "-l", f"app={name}")
    rows = [line.split() for line in cluster.ctr("images", "list").splitlines()[1:]]
    (digest,) = {row[2] for row in rows if row[0] == image}
    cluster.ctr("images", "remove", "--sync", *(row[0] for row in rows if row[2] == digest))
