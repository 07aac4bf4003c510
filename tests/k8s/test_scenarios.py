"""The four scenarios on a real cluster, by the commands of k8s/README.md: installed, pushed to, pulled from, gone again."""

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.k8s.google import PROJECT, Google
from tests.k8s.scenario import Scenario, files, inventory, write_image_archive
from tests.services.clients import CHECKOUT
from tests.services.cluster import Cluster
from tests.services.cluster.programs import built
from tests.services.pod_image import USER
from tests.services.registry import Credentials, RegistryServer, command, filesystem_store

pytestmark = pytest.mark.cluster
LARGE = 48 << 20
MINIO = (CHECKOUT / "k8s/examples/minio.yaml").read_text()
VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata: { name: minio }
spec:
  capacity: { storage: 20Gi }
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  hostPath: { path: /srv/minio }
"""


@pytest.fixture(scope="module", autouse=True)
def images(cluster: Cluster, registry_image: str) -> None:
    """The node has the registry's image, under the name that the chart and the manifests give it."""


@pytest.fixture(scope="module")
def minio(cluster: Cluster, minio_image: str) -> Iterator[None]:
    """The example's MinIO in `edge-storage`, with the volume that this cluster does not make by itself."""
    (named,) = [line.split()[-1] for line in MINIO.splitlines() if "image: quay.io" in line]
    cluster.ctr("images", "tag", f"docker.io/library/{minio_image}", named)
    make_folder(cluster, "minio")
    cluster.kubectl("create", "namespace", "edge-storage")
    cluster.apply(VOLUME)
    for name, values in {
        "minio-root": {"user": "admin", "password": secrets.token_hex(12)},
        "edge-registry-s3": {"access-key": "edge-registry", "secret-key": secrets.token_hex(12)},
    }.items():
        make_secret(cluster, "edge-storage", name, values)
    cluster.apply(MINIO)
    cluster.wait("deployment/minio", "condition=Available", "-n", "edge-storage", seconds=90)
    cluster.wait("job/registry-bucket", "condition=Complete", "-n", "edge-storage", seconds=105)
    yield
    cluster.kubectl("delete", "namespace", "edge-storage")
    cluster.kubectl("delete", "-f", "-", stdin=VOLUME)


@pytest.fixture
def hello(tmp_path: Path) -> str:
    """An image that no test before had, so that the node has none of it; as skopeo names it."""
    return write_image_archive(tmp_path / "small", Path(built("hello")))


@pytest.fixture
def large(tmp_path: Path) -> str:
    """Another, which takes seconds to pull."""
    return write_image_archive(tmp_path / "large", Path(built("hello")), LARGE)


def make_secret(cluster: Cluster, namespace: str, name: str, values: dict[str, str]) -> None:
    literals = [f"--from-literal={key}={value}" for key, value in values.items()]
    cluster.kubectl("-n", namespace, "create", "secret", "generic", name, *literals)


def make_folder(cluster: Cluster, name: str) -> None:
    """`install -d -o 65532 -g 65532 -m 700` below the node's /srv."""
    folder = cluster.node.srv / name
    folder.mkdir(mode=0o700)
    os.chown(folder, USER, USER)


def test_edge_storage_serves_its_node_at_5045_and_goes_without_a_trace(
    cluster: Cluster, minio: None, hello: str, large: str, tmp_path: Path
) -> None:
    before, etc = inventory(cluster), files(cluster.node.etc)
    scenario = Scenario(cluster, tmp_path, "edge-storage")
    host, service = f"{cluster.address}:5045", "edge-registry.edge-storage.svc"
    scenario.make_users()
    scenario.make_certificates(cluster.address, service)
    scenario.install()
    scenario.test()
    told = tmp_path / "nodes.yaml"
    told.write_text(yaml.safe_dump({"hosts": [host], "ca_file": str(scenario.ca)}))
    command("node-setup", "apply", "--root", str(cluster.node.folder), "--config", str(told))

    scenario.push(hello, f"{host}/hello:1")
    scenario.make_pull_secret(host, f"{service}:5045")
    scenario.run_workload(f"{host}/hello:1")
    scenario.run_refused(f"{host}/hello:1")
    assert scenario.ask(f"https://{service}:5045/v2/") == 401
    scenario.push(large, f"{host}/large:1")
    scenario.run_through_a_kill(f"{host}/large:1")

    command("node-setup", "remove", "--root", str(cluster.node.folder))
    scenario.uninstall()
    scenario.kubectl("delete", "deployment", "registry-test", "through-a-kill")
    scenario.kubectl("delete", "secret", "edge-registry-users", "edge-registry-tls", "registry-pull")
    cluster.await_that("nothing is left", lambda: inventory(cluster) == before, 60)
    assert files(cluster.node.etc) == etc


def test_the_private_registry_tells_its_nodes_where_it_is_and_takes_that_back(
    cluster: Cluster, hello: str, large: str, tmp_path: Path
) -> None:
    before, etc = inventory(cluster), files(cluster.node.etc)
    scenario = Scenario(cluster, tmp_path, "k3s-private")
    name, service = "container-registry.local", "edge-registry.edge-registry.svc"
    folders = {"nodeSetup": {"folders": ["/etc/containerd"]}}
    make_folder(cluster, "edge-registry")
    scenario.make_namespace()
    scenario.make_users()
    scenario.make_certificates(name, "localhost", "127.0.0.1", service)
    scenario.make_namespace("edge-registry-nodes")
    cluster.kubectl("label", "namespace", "edge-registry-nodes", "pod-security.kubernetes.io/enforce=privileged")
    cluster.kubectl(
        *("-n", "edge-registry-nodes", "create", "configmap", "edge-registry-ca", f"--from-file={scenario.ca}")
    )
    scenario.install(folders)
    scenario.test()
    hosts = cluster.node.etc / "hosts"
    cluster.await_that("the node knows the name", lambda: name in hosts.read_text(), 60)

    # What `localhost` means is known on the node alone.
    cluster.node.run("skopeo", *scenario.copy(hello, "localhost:31113/hello:latest"))
    scenario.make_pull_secret("localhost:31113", f"{name}:5000", f"{cluster.address}:31113")
    scenario.run_workload("localhost:31113/hello:latest")
    scenario.run_workload(f"{name}:5000/hello:latest", "by-name")
    scenario.run_refused("localhost:31113/hello:latest")
    assert scenario.ask(f"https://{service}:5000/v2/") == 401
    cluster.node.run("skopeo", *scenario.copy(large, "localhost:31113/large:1"))
    scenario.run_through_a_kill("localhost:31113/large:1")

    scenario.kubectl("delete", "service", "edge-registry")
    moved = {"service": {"clusterIP": "10.96.0.77"}}
    scenario.install(folders | moved, verb="upgrade")
    cluster.await_that("the node follows the Service", lambda: "10.96.0.77" in hosts.read_text(), 60)

    scenario.install({"nodeSetup": {**folders["nodeSetup"], "mode": "remove"}} | moved, verb="upgrade")
    cluster.kubectl("-n", "edge-registry-nodes", "rollout", "status", "daemonset/edge-registry-nodes", "--timeout=60s")
    assert files(cluster.node.etc) == etc
    scenario.uninstall()
    cluster.kubectl("delete", "namespace", "edge-registry", "edge-registry-nodes")
    cluster.await_that("nothing is left", lambda: inventory(cluster) == before, 60)


@pytest.fixture
def docker_hub(tmp_path: Path, hello: str) -> Iterator[RegistryServer]:
    """Stands in for Docker Hub: a registry on this machine with `library/hello:1`, which everybody may pull."""
    user = Credentials("hub", secrets.token_urlsafe(12))
    settings = {"EDGE_REGISTRY_HTTP__HOST": "0.0.0.0", "EDGE_REGISTRY_AUTH__ANONYMOUS": "pull"}
    store = filesystem_store(tmp_path / "hub/data")
    with RegistryServer(tmp_path / "hub", store, users=user, settings=settings) as server:
        yield server


def test_the_cache_serves_what_it_has_while_the_uplink_is_gone_and_takes_pushes_next_door(
    cluster: Cluster, docker_hub: RegistryServer, hello: str, large: str, tmp_path: Path
) -> None:
    before = inventory(cluster)
    scenario = Scenario(cluster, tmp_path, "caching")
    hub = Scenario(cluster, tmp_path / "hub", "caching")
    assert docker_hub.credentials is not None
    hub.user = docker_hub.credentials
    hub.push(hello, f"{docker_hub.host}/library/hello:1")
    url = f"http://{cluster.outside}:{docker_hub.port}"
    make_folder(cluster, "edge-cache")
    scenario.make_namespace()
    scenario.make_users()
    scenario.install({"proxy": {"upstreams": [{"name": "docker.io", "url": url, "tag_ttl": "1s"}]}})
    scenario.test()

    scenario.run_workload("localhost:32000/hello:1", "cached")
    docker_hub.stop()
    forget(cluster, "localhost:32000/hello:1")
    scenario.run_workload("localhost:32000/hello:1", "offline")

    host = f"{cluster.address}:32001"
    scenario.push(hello, f"{host}/team/hello:1")
    scenario.make_pull_secret("localhost:32001", host)
    scenario.run_workload("localhost:32001/team/hello:1")
    scenario.run_refused("localhost:32001/team/hello:1")
    assert scenario.ask("http://edge-registry.edge-cache.svc:32000/v2/") == 200
    assert scenario.ask("http://edge-registry.edge-cache.svc:32001/v2/") == 401
    scenario.push(large, f"{host}/team/large:1")
    scenario.run_through_a_kill("localhost:32001/team/large:1")

    scenario.uninstall()
    cluster.kubectl("delete", "namespace", "edge-cache")
    cluster.await_that("nothing is left", lambda: inventory(cluster) == before, 60)
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


@pytest.fixture
def google(cluster: Cluster, tmp_path: Path) -> Iterator[Google]:
    """Stands in for Google, before a registry on this machine."""
    values = yaml.safe_load((CHECKOUT / "k8s/scenarios/google-cache.yaml").read_text())
    with (
        RegistryServer(tmp_path / "artifacts", filesystem_store(tmp_path / "artifacts/data")) as registry,
        Google(
            tmp_path / "google",
            cluster.outside,
            registry.url,
            cluster.kubectl("get", "--raw", "/openid/v1/jwks"),
            audience=values["google"]["workloadIdentity"]["audience"],
            subject="system:serviceaccount:google-cache:edge-registry",
        ) as services,
    ):
        yield services


def test_three_replicas_cache_artifact_registry_without_any_stored_key(
    cluster: Cluster, minio: None, google: Google, hello: str, large: str, tmp_path: Path
) -> None:
    before = inventory(cluster)
    keys = {"access-key": "google-cache", "secret-key": secrets.token_hex(12)}
    make_secret(cluster, "edge-storage", "google-cache-s3", keys)
    cluster.apply(bucket_job("registry-google-cache", "google-cache-s3"))
    cluster.wait("job/registry-google-cache", "condition=Complete", "-n", "edge-storage", seconds=60)
    scenario = Scenario(cluster, tmp_path, "google-cache")
    scenario.push(hello, google.pushed("hello:1"))
    scenario.push(large, google.pushed("large:1"))
    scenario.make_namespace()
    cluster.kubectl("label", "namespace", "google-cache", "pod-security.kubernetes.io/enforce=restricted")
    scenario.make_users()
    make_secret(cluster, "google-cache", "edge-registry-s3", keys)
    scenario.kubectl("create", "configmap", "google-ca", f"--from-file={google.certificates.ca}")
    scenario.install(at_google(google))
    scenario.test()
    assert len(scenario.replicas()) == 3

    scenario.make_pull_secret("localhost:32500", f"{cluster.address}:32500")
    scenario.run_workload("localhost:32500/hello:1")
    assert google.exchanges > 0
    assert google.complaints == []
    scenario.run_refused("localhost:32500/hello:1")
    assert scenario.ask("http://edge-registry.google-cache.svc:5045/v2/") == 401
    scenario.push(hello, f"{cluster.address}:32500/team/own:1")
    scenario.run_workload("localhost:32500/team/own:1", "own")
    scenario.run_through_a_kill("localhost:32500/large:1")

    scenario.uninstall()
    cluster.kubectl("delete", "namespace", "google-cache")
    cluster.kubectl("-n", "edge-storage", "delete", "job/registry-google-cache", "secret/google-cache-s3")
    cluster.await_that("nothing is left", lambda: inventory(cluster) == before, 60)


def bucket_job(bucket: str, secret: str) -> str:
    """The example's Job for another bucket, whose user has the keys of `secret`."""
    (job,) = [text for text in MINIO.split("\n---\n") if "kind: Job" in text]
    return job.replace("registry-bucket", bucket).replace("registry-edge", bucket).replace("edge-registry-s3", secret)


def at_google(google: Google) -> dict[str, object]:
    """Values that put the stand-in where Google is."""
    folder = "/etc/google-ca"
    address = f"{google.url}/v1"
    return {
        "google": {
            "workloadIdentity": {
                "tokenUrl": f"{address}/token",
                "impersonationUrl": f"{address}/projects/-/serviceAccounts/reader:generateAccessToken",
            }
        },
        "proxy": {
            "upstreams": [
                {
                    "name": "europe-docker.pkg.dev",
                    "url": google.url + PROJECT,
                    "credentials": {"google": {"file": "/etc/workload-identity/credentials.json"}},
                    "tls": {"ca": f"{folder}/ca.crt"},
                }
            ]
        },
        "extraEnv": [{"name": "SSL_CERT_FILE", "value": f"{folder}/ca.crt"}],
        "extraVolumes": [{"name": "google-ca", "configMap": {"name": "google-ca"}}],
        "extraVolumeMounts": [{"name": "google-ca", "mountPath": folder}],
    }
