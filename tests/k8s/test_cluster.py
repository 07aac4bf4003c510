"""The cluster of these tests is a real one, and takes back all that it did to this machine."""

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.services.clients import CHECKOUT, Client, find_program
from tests.services.cluster import Cluster
from tests.services.pod_image import HELLO_IMAGE
from tests.services.registry import Credentials, RegistryServer, filesystem_store

pytestmark = pytest.mark.cluster
HELLO = """
apiVersion: apps/v1
kind: Deployment
metadata: { name: hello }
spec:
  selector: { matchLabels: { app: hello } }
  template:
    metadata: { labels: { app: hello } }
    spec:
      containers:
        - { name: hello, image: "%s", readinessProbe: { tcpSocket: { port: 8080 } } }
---
apiVersion: v1
kind: Service
metadata: { name: hello }
spec:
  type: NodePort
  selector: { app: hello }
  ports: [{ port: 80, targetPort: 8080 }]
"""
PULLED = """
apiVersion: v1
kind: Pod
metadata: { name: %s }
spec:
  containers: [{ name: hello, image: %s, imagePullPolicy: Always }]
  imagePullSecrets: %s
"""


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a new namespace with its account; it is removed afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    cluster.await_that(
        "the namespace's account is there",
        lambda: cluster.attempt("get", "serviceaccount", "default", "-n", name).returncode == 0,
    )
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def test_a_service_answers_at_its_node_port_and_by_its_name(
    cluster: Cluster, namespace: str, hello_archive: Path, registry_image: str
) -> None:
    cluster.import_image(hello_archive)
    cluster.apply(HELLO % HELLO_IMAGE, "-n", namespace)
    cluster.wait("deployment/hello", "condition=Available", "-n", namespace)
    port = cluster.kubectl("get", "service", "hello", "-n", namespace, "-o", "jsonpath={.spec.ports[0].nodePort}")

    cluster.await_that("it answers at its port", lambda: _answer(f"http://{cluster.address}:{port}/") == b"hello\n")
    assert cluster.node.run("busybox", "wget", "-qO-", f"http://127.0.0.1:{port}/") == "hello\n"
    program = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read())"
    said = cluster.run_pod(registry_image, "python", "-c", program, f"http://hello.{namespace}.svc/")
    assert said == "b'hello\\n'\n"


@pytest.fixture(scope="module")
def outside(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry on this machine, which the node reaches, with a user."""
    folder = tmp_path_factory.mktemp("outside")
    user = Credentials("edge", secrets.token_urlsafe(16))
    with RegistryServer(
        folder, filesystem_store(folder / "data"), users=user, settings={"EDGE_REGISTRY_HTTP__HOST": "0.0.0.0"}
    ) as server:
        yield server


@pytest.fixture(scope="module")
def pushed(
    cluster: Cluster, outside: RegistryServer, hello_archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The name by which the node pulls an image from there."""
    skopeo = find_program("skopeo")
    assert skopeo is not None, "skopeo is not installed"
    assert outside.credentials is not None
    client = Client(skopeo, tmp_path_factory.mktemp("skopeo"))
    user = f"{outside.credentials.name}:{outside.credentials.password}"
    target = f"docker://127.0.0.1:{outside.port}/team/hello:1"
    policy = ("--insecure-policy", "copy", "--dest-tls-verify=false", "--dest-creds", user)
    client.run(*policy, f"docker-archive:{hello_archive}", target)
    host = f"{cluster.outside}:{outside.port}"
    (cluster.certs / host).mkdir()
    (cluster.certs / host / "hosts.toml").write_text(f'server = "http://{host}"\n[host."http://{host}"]\n')
    return f"{host}/team/hello:1"


def test_a_pod_with_the_pull_secret_runs(
    cluster: Cluster, namespace: str, outside: RegistryServer, pushed: str
) -> None:
    assert outside.credentials is not None
    auth = base64.b64encode(f"{outside.credentials.name}:{outside.credentials.password}".encode()).decode()
    document = json.dumps({"auths": {pushed.partition("/")[0]: {"auth": auth}}})
    cluster.kubectl(
        *("create", "secret", "generic", "pull", "-n", namespace, "--type=kubernetes.io/dockerconfigjson"),
        f"--from-literal=.dockerconfigjson={document}",
    )
    cluster.apply(PULLED % ("pulled", pushed, "[{ name: pull }]"), "-n", namespace)
    cluster.wait("pod/pulled", "condition=Ready", "-n", namespace)


def test_a_pod_without_the_pull_secret_is_told_that_it_may_not_pull(
    cluster: Cluster, namespace: str, pushed: str
) -> None:
    cluster.apply(PULLED % ("refused", pushed, "[]"), "-n", namespace)
    reason = "{.status.containerStatuses[0].state.waiting.reason}"
    cluster.wait("pod/refused", f"jsonpath={reason}=ErrImagePull", "-n", namespace)
    events = cluster.kubectl("get", "events", "-n", namespace, "-o", "jsonpath={.items[*].message}")
    assert "401 Unauthorized" in events or "no basic auth credentials" in events  # containerd 1.6, and 2


def test_a_cluster_whose_starter_is_killed_leaves_nothing_and_starts_again(cluster: Cluster, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.services.cluster", str(tmp_path / "second")]
    for end in (signal.SIGKILL, signal.SIGTERM):
        cables = _cables()
        starter = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
        assert starter.stdout is not None
        try:
            assert starter.stdout.readline().startswith("export KUBECONFIG="), "the second cluster did not start"
            assert len(_cables()) == len(cables) + 1
            assert _processes_in(tmp_path) != []
        finally:
            starter.send_signal(end)
            starter.wait(60)
            starter.stdout.close()
        cluster.await_that("its processes are gone", lambda: _processes_in(tmp_path) == [], 20)
        cluster.await_that("its interface is gone", partial(_cables_are, cables), 20)
        assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert not (tmp_path / "second/node/var").exists()


def test_a_cluster_that_ends_while_pods_run_leaves_no_control_groups(
    cluster: Cluster, hello_archive: Path, tmp_path: Path
) -> None:
    before = _control_groups()
    with Cluster(tmp_path / "third") as third:
        third.import_image(hello_archive)
        third.kubectl("run", "hello", f"--image={HELLO_IMAGE}")
        third.wait("pod/hello", "condition=Ready")
        made = _control_groups() - before
        assert made
    assert not made & _control_groups()


def _answer(url: str) -> bytes | None:
    """What is there; None where nobody answers, as while kube-proxy has not written its rules."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bytes(answer.read())
    except OSError:
        return None


def _cables() -> list[str]:
    return sorted(path.name for path in Path("/sys/class/net").glob("er-node*"))


def _cables_are(expected: list[str]) -> bool:
    return _cables() == expected


def _processes_in(folder: Path) -> list[int]:
    """The processes with a mount from below `folder`: those of a node whose files are there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            mounts = (process / "mountinfo").read_text()
        except OSError:
            continue
        if str(folder) in mounts and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def _control_groups() -> set[Path]:
    """Those of the containers of every node on this machine."""
    roots = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/")]
    return {group for root in roots for group in (root / "k8s.io").glob("*/")}
