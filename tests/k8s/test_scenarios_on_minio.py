"""The scenarios whose store is MinIO, on a real cluster, by the commands of k8s/README.md: installed, used, gone again."""

import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.k8s.docker import DockerMachine
from tests.k8s.google import PROJECT, Google
from tests.k8s.scenario import Scenario, make_folder
from tests.k8s.traces import Traces, await_nothing_left
from tests.services.clients import CHECKOUT
from tests.services.cluster import Cluster
from tests.services.cluster.programs import built
from tests.services.registry import RegistryServer, command, filesystem_store

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("registry_image")]
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


@pytest.fixture(scope="module")
def minio(cluster: Cluster, registry_image: str, minio_image: str) -> Iterator[None]:
    """The example's MinIO in `edge-storage`, with the volume that this cluster does not make by itself."""
    (named,) = [line.split()[-1] for line in MINIO.splitlines() if "image: quay.io" in line]
    cluster.ctr("images", "tag", f"docker.io/library/{minio_image}", named)
    make_folder(cluster.node, "minio")
    cluster.kubectl("create", "namespace", "edge-storage")
    cluster.apply(VOLUME)
    for name, values in {
        "minio-root": {"user": "admin", "password": secrets.token_hex(12)},
        "edge-registry-s3": {"access-key": "edge-registry", "secret-key": secrets.token_hex(12)},
    }.items():
        make_secret(cluster, "edge-storage", name, values)
    cluster.apply(MINIO)
    cluster.wait("deployment/minio", "condition=Available", "-n", "edge-storage", seconds=180)
    cluster.wait("job/registry-bucket", "condition=Complete", "-n", "edge-storage", seconds=180)
    yield
    cluster.kubectl("delete", "namespace", "edge-storage")
    cluster.kubectl("delete", "-f", "-", stdin=VOLUME)


def make_secret(cluster: Cluster, namespace: str, name: str, values: dict[str, str]) -> None:
    literals = [f"--from-literal={key}={value}" for key, value in values.items()]
    cluster.kubectl("-n", namespace, "create", "secret", "generic", name, *literals)


@pytest.fixture
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerMachine]:
    """Another machine, with Docker."""
    with DockerMachine(tmp_path_factory.mktemp("docker")) as machine:
        yield machine


def test_edge_storage_serves_its_node_at_5045_and_goes_without_a_trace(
    cluster: Cluster, minio: None, before: Traces, docker: DockerMachine, large: str, tmp_path: Path
) -> None:
    scenario = Scenario(cluster, tmp_path, "edge-storage")
    host, service = f"{cluster.address}:5045", "edge-registry.edge-storage.svc"
    scenario.make_users()
    scenario.make_certificates(cluster.address, service)
    scenario.install()
    scenario.test()
    tell_node(scenario, host)

    docker.trust(host, scenario.ca)
    assert "no basic auth credentials" in docker.fail("pull", f"{host}/hello:1")
    docker.push(Path(built("hello")), f"{host}/hello:1", scenario.user)
    docker.run("image", "rm", f"{host}/hello:1", "made:here")
    docker.run("pull", f"{host}/hello:1")
    scenario.make_pull_secret(host, f"{service}:5045")
    scenario.run_workload(f"{host}/hello:1")
    scenario.run_refused(f"{host}/hello:1")
    examine(scenario, host)
    assert scenario.ask(f"https://{service}:5045/v2/") == 401
    scenario.push(large, f"{host}/large:1")
    scenario.run_through_a_kill(f"{host}/large:1")

    command("node-setup", "remove", "--root", str(cluster.node.folder))
    scenario.uninstall()
    scenario.kubectl("delete", "deployment", "registry-test", "through-a-kill")
    scenario.kubectl("delete", "secret", "edge-registry-users", "edge-registry-tls", "registry-pull")
    await_nothing_left(cluster, before)


def test_edge_storage_is_installed_and_removed_by_kubectl_alone_too(
    cluster: Cluster, minio: None, before: Traces, hello: str, tmp_path: Path
) -> None:
    scenario = Scenario(cluster, tmp_path, "edge-storage")
    host = f"{cluster.address}:5045"
    scenario.make_users()
    scenario.make_certificates(cluster.address)
    scenario.apply()
    tell_node(scenario, host)
    scenario.push(hello, f"{host}/plain:1")
    scenario.make_pull_secret(host)
    scenario.run_workload(f"{host}/plain:1")

    command("node-setup", "remove", "--root", str(cluster.node.folder))
    scenario.kubectl("delete", "deployment", "registry-test")
    cluster.kubectl("delete", "-f", str(scenario.manifests))
    scenario.kubectl("delete", "secret", "edge-registry-users", "edge-registry-tls", "registry-pull")
    await_nothing_left(cluster, before)


def examine(scenario: Scenario, host: str) -> None:
    """`edge-registry doctor` finds nothing wrong: in the registry's pod with its configuration, and on the node that pulls."""
    login = ("--user", scenario.user.name, "--password-stdin", "--host", host, "--json")
    inside = scenario.kubectl(
        *("exec", "-i", "deployment/edge-registry", "--", "edge-registry", "doctor", *login),
        stdin=scenario.user.password,
    )
    secret = scenario.folder / "pull-secret.yaml"
    secret.write_text(scenario.kubectl("get", "secret", "registry-pull", "-o", "yaml"))
    # Docker and podman of this machine are on the node too, where nobody told them of the registry.
    outside = scenario.cluster.node.attempt(
        *(sys.executable, "-m", "app", "doctor", "--url", f"https://{host}", "--ca", str(scenario.ca)),
        *("--only", "clients", "--only", "pull-secret", "--pull-secret", str(secret), *login),
        stdin=scenario.user.password,
        environment={"PYTHONPATH": str(CHECKOUT)},
    ).stdout
    assert verdicts(inside, "round-trip") == dict.fromkeys(("push", "pull", "delete"), "ok")
    assert verdicts(outside, "clients")[f"containerd {host}"] == "ok"
    assert set(verdicts(outside, "pull-secret").values()) == {"ok"}


def verdicts(said: str, group: str) -> dict[str, str]:
    """What doctor thinks of each thing of a group."""
    return {check["name"]: check["verdict"] for check in json.loads(said)["checks"] if check["group"] == group}


def tell_node(scenario: Scenario, host: str) -> None:
    """Writes on the node what its containerd must know of the registry, as a DaemonSet would."""
    told = scenario.folder / "nodes.yaml"
    told.write_text(yaml.safe_dump({"hosts": [host], "ca_file": str(scenario.ca)}))
    command("node-setup", "apply", "--root", str(scenario.cluster.node.folder), "--config", str(told))


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
    cluster: Cluster, minio: None, before: Traces, google: Google, hello: str, large: str, tmp_path: Path
) -> None:
    keys = {"access-key": "google-cache", "secret-key": secrets.token_hex(12)}
    make_secret(cluster, "edge-storage", "google-cache-s3", keys)
    cluster.apply(bucket_job("registry-google-cache", "google-cache-s3"))
    cluster.wait("job/registry-google-cache", "condition=Complete", "-n", "edge-storage", seconds=120)
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
    await_nothing_left(cluster, before)


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
