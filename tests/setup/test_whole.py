"""From nothing to a pull by a second machine, on a real cluster; and back to nothing."""

import base64
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.services.clients import CHECKOUT, Client, find_program
from tests.services.cluster import Cluster
from tests.services.cluster.node import Node
from tests.services.cluster.programs import built, installed
from tests.setup.running import WHOLE, Setup

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

USER, PASSWORD = "ann", f"{secrets.token_hex(8)} and a blank"
MINIO = """
apiVersion: v1
kind: Service
metadata: { name: minio, namespace: edge-storage }
spec:
  ports: [{ name: s3, port: 9000 }]
  selector: { app: minio }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: minio, namespace: edge-storage }
spec:
  selector: { matchLabels: { app: minio } }
  template:
    metadata: { labels: { app: minio } }
    spec:
      enableServiceLinks: false
      containers:
        - name: minio
          image: "%s"
          args: [server, /data, --address, ":9000"]
          env:
            - { name: MINIO_CI_CD, value: "1" }
            - { name: MINIO_ROOT_USER, valueFrom: { secretKeyRef: { name: minio-root, key: user } } }
            - { name: MINIO_ROOT_PASSWORD, valueFrom: { secretKeyRef: { name: minio-root, key: password } } }
          readinessProbe: { httpGet: { path: /minio/health/ready, port: 9000 }, periodSeconds: 2 }
"""
POD = """
apiVersion: v1
kind: Pod
metadata: { name: %s, namespace: work }
spec:
  enableServiceLinks: false
  containers: [{ name: hello, image: %s, imagePullPolicy: Always }]
  imagePullSecrets: %s
"""
CONTAINERD = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
BY_ITSELF = ("events", "leases", "componentstatuses", "endpoints", "endpointslices", "ipaddresses", "pods", "nodes")


@pytest.fixture(scope="module")
def storage(cluster: Cluster, minio_image: str, registry_image: str) -> str:
    """What is there before: MinIO in edge-storage with its administrator's secret. Returns the namespace."""
    cluster.kubectl("create", "namespace", "work")
    cluster.kubectl("create", "namespace", "edge-storage")
    cluster.kubectl(
        *("-n", "edge-storage", "create", "secret", "generic", "minio-root"),
        *("--from-literal=user=administrator", f"--from-literal=password={secrets.token_hex(16)}"),
    )
    cluster.apply(MINIO % minio_image)
    cluster.wait("deployment/minio", "condition=Available", "-n", "edge-storage")
    return "edge-storage"


@pytest.fixture
def setup(cluster: Cluster, storage: str, tmp_path: Path) -> Iterator[Setup]:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(built("kubectl"))
    setup = Setup(tmp_path, KUBECONFIG=str(cluster.kubeconfig), KUBECACHEDIR=str(tmp_path / "cache"))
    setup.variables["PATH"] = f"{programs}:{setup.variables['PATH']}"
    yield setup
    setup.run(WHOLE, "--uninstall", "--delete-data")


@pytest.fixture
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Another machine: its own network, /etc and containerd."""
    node = Node(tmp_path_factory.mktemp("second"))
    node.start()
    try:
        (node.etc / "containerd").mkdir()
        (node.etc / "containerd/config.toml").write_text(CONTAINERD)
        node.spawn("containerd", installed("containerd"), "--config", "/etc/containerd/config.toml")
        yield node
    finally:
        node.stop()


def objects(cluster: Cluster) -> set[str]:
    """Every object of the cluster that does not come and go by itself, with its version."""
    found = cluster.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    kinds = ",".join(kind for kind in found if kind.partition(".")[0] not in BY_ITSELF)
    path = "jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.generation}{'\\n'}{end}"
    return set(cluster.kubectl("get", kinds, "-A", "-o", path.replace("'", '"')).splitlines())


def files(node: Node) -> dict[str, bytes | None]:
    """All files and folders of a node that set-up could touch."""
    roots = [node.etc, node.var / "lib/edge-registry"]
    found = [path for root in roots if root.exists() for path in (root, *root.rglob("*"))]
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(found) if not path.is_symlink()}


def store(cluster: Cluster) -> set[str]:
    """Users, policies and buckets that MinIO keeps, by the names of their folders."""
    listed = cluster.kubectl(
        *("-n", "edge-storage", "exec", "deployment/minio", "--", "sh", "-c"),
        "ls /data /data/.minio.sys/config/iam/users /data/.minio.sys/config/iam/policies 2>/dev/null || true",
    )
    return set(listed.split()) - {"/data:", "/data/.minio.sys/config/iam/users:"}


def push(cluster: Cluster, setup: Setup, archive: Path, home: Path) -> str:
    """Pushes `hello-world` from this machine, as the last lines say; returns its name."""
    skopeo = find_program("skopeo")
    assert skopeo is not None, "skopeo is not installed"
    client = Client(skopeo, home)
    trusted = home / "trusted"
    trusted.mkdir()
    (trusted / "ca.crt").write_bytes((setup.state / "certs/ca.crt").read_bytes())
    name = f"{cluster.address}:5045/hello-world"
    client.run(
        *("--insecure-policy", "copy", "--dest-cert-dir", str(trusted), "--dest-creds", f"{USER}:{PASSWORD}"),
        *(f"docker-archive:{archive}", f"docker://{name}:latest"),
    )
    return name


def install_on(node: Node, cluster: Cluster, setup: Setup, home: Path) -> None:
    """Gives another machine what node-config says, by running what it prints."""
    host = f"{cluster.address}:5045"
    done = Client(Path(setup.variables["REGISTRY_PYTHON"]), home, environment={"PYTHONPATH": str(CHECKOUT)}).run(
        *("-m", "app", "node-config", "--for", "containerd", "--host", host, "--ca", str(setup.state / "certs/ca.crt"))
    )
    node.run("sh", "-s", stdin=done)


def test_from_nothing_to_a_pull_by_another_machine_and_back_to_nothing(
    cluster: Cluster, setup: Setup, second: Node, hello_archive: Path, tmp_path: Path
) -> None:
    before = objects(cluster), files(cluster.node), store(cluster)
    options = ("--pull-secrets", "work")
    login = {"REGISTRY_USER": USER, "REGISTRY_PASSWORD": PASSWORD}

    would = setup.succeed(WHOLE, "--dry-run", *options, **login).would
    assert (objects(cluster), files(cluster.node), store(cluster)) == before
    assert not setup.state.exists()
    assert "make Deployment edge-storage/edge-registry" in would
    assert "make Secret work/registry-pull" in would

    done = setup.succeed(WHOLE, *options, **login)
    assert f"The registry listens on https://{cluster.address}:5045" in done.stdout
    assert f"docker pull {cluster.address}:5045/hello-world" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr
    made = objects(cluster) - before[0]
    announced = {line.removeprefix("make ") for line in would if line.startswith("make ")}
    for one in made:
        kind, _, rest = one.partition(" ")
        name = rest.partition(" ")[0]
        assert (
            f"{kind} {name}" in announced
            or kind in ("ReplicaSet", "ControllerRevision", "Namespace")
            or (name.partition("/")[2] in ("default", "kube-root-ca.crt"))
        ), one
    for path in set(files(cluster.node)) - set(before[1]):
        if not Path(path).is_dir():
            inside = path.removeprefix(str(cluster.node.folder))
            assert f"write on every node: {inside}" in would

    image = push(cluster, setup, hello_archive, tmp_path / "skopeo")
    install_on(second, cluster, setup, tmp_path / "python")
    ctr = (installed("ctr"), "images", "pull", "--snapshotter", "native", "--hosts-dir", "/etc/containerd/certs.d")
    cluster.await_that(
        "the second containerd answers", lambda: second.attempt(installed("ctr"), "version").returncode == 0
    )
    refused = second.attempt(*ctr, f"{image}:latest")
    assert refused.returncode != 0
    assert "401" in refused.stderr + refused.stdout
    second.run(*ctr, "--user", f"{USER}:{PASSWORD}", f"{image}:latest")

    named = "container-registry.local:5045/hello-world:latest"
    cluster.apply(POD % ("by-name", named, "[{ name: registry-pull }]"))
    cluster.wait("pod/by-name", "condition=Ready", "-n", "work")
    cluster.kubectl("-n", "work", "delete", "pod", "by-name", "--now")

    again = objects(cluster)
    assert setup.succeed(WHOLE, "--dry-run", *options, **login).would == []
    setup.succeed(WHOLE, *options, **login)
    assert objects(cluster) == again

    said = setup.succeed(WHOLE, "--uninstall").stderr
    assert "keep the bucket registry-edge, which has content" in said
    assert f"what is left stands in {setup.state}/record" in said
    assert "nothing is left" in setup.succeed(WHOLE, "--uninstall", "--delete-data").stderr
    assert objects(cluster) == before[0]
    assert files(cluster.node) == before[1]
    assert store(cluster) == before[2]
    assert not setup.state.exists()


def test_a_password_is_made_and_shown_once_and_users_that_people_added_stay(cluster: Cluster, setup: Setup) -> None:
    parts = ("--parts", "bucket certificates deploy")
    assert setup.succeed(WHOLE, *parts).stdout.count("(shown this once)") == 1
    path = ("-n", "edge-storage", "get", "secret", "edge-registry-users", "-o", "jsonpath={.data.htpasswd}")
    first = cluster.kubectl(*path)
    done = setup.succeed(WHOLE, *parts)
    assert "shown this once" not in done.stdout
    assert cluster.kubectl(*path) == first
    old = {"regUser": "old-user", "regPass5": "old password"}
    setup.succeed("deploy", **old)
    assert "old-user:" in _decoded(cluster.kubectl(*path))
    assert "edge:" in _decoded(cluster.kubectl(*path))


def test_objects_of_others_are_not_touched(cluster: Cluster, setup: Setup) -> None:
    cluster.kubectl("-n", "edge-storage", "create", "configmap", "edge-registry", "--from-literal=mine=yes")
    try:
        said = setup.run(WHOLE, "--parts", "bucket certificates deploy")
        assert said.status != 0
        assert "ConfigMap edge-storage/edge-registry is there and was not made by this script" in said.stderr
        setup.succeed(WHOLE, "--uninstall")
        mine = cluster.kubectl("-n", "edge-storage", "get", "configmap", "edge-registry", "-o", "jsonpath={.data.mine}")
        assert mine == "yes"
    finally:
        with suppress(AssertionError):
            cluster.kubectl("-n", "edge-storage", "delete", "configmap", "edge-registry")


def test_another_machine_takes_back_what_one_has_made(cluster: Cluster, setup: Setup, tmp_path: Path) -> None:
    before = objects(cluster), store(cluster)
    setup.succeed(WHOLE, "--parts", "bucket certificates deploy")
    elsewhere = {"REGISTRY_STATE": str(tmp_path / "elsewhere")}
    assert "the cluster has a certificate whose authority is not in" in setup.fail("certificates", **elsewhere)
    setup.succeed(WHOLE, "--uninstall", "--delete-data", **elsewhere)  # a registry that ran has left keys in the bucket
    assert (objects(cluster), store(cluster)) == before


def test_what_a_node_lacks_is_said_until_it_has_it(cluster: Cluster, setup: Setup) -> None:
    config = cluster.node.etc / "containerd/config.toml"
    whole = config.read_text()
    config.write_text("".join(line for line in whole.splitlines(keepends=True) if "config_path" not in line))
    try:
        said = setup.succeed(WHOLE, "--parts", "bucket certificates deploy nodes").stderr
    finally:
        config.write_text(whole)
    assert "node node-1: containerd: this node sets no config_path in /etc/containerd/config.toml" in said
    assert 'config_path = "/etc/containerd/certs.d"' in said
    assert "node-1" not in setup.succeed("nodes").stderr


def test_what_does_not_become_ready_is_said_with_its_reason(setup: Setup) -> None:
    done = setup.run(
        WHOLE, "--parts", "bucket certificates deploy", "--image", "127.0.0.1:1/nothing:1", "--timeout", "15"
    )
    assert done.status != 0
    assert "deployment/edge-registry in edge-storage is not ready after 15 seconds" in done.stderr
    assert "ErrImagePull" in done.stderr or "ImagePullBackOff" in done.stderr
    assert "the part deploy failed" in done.stderr


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
