"""One scenario on the cluster, step by step as k8s/README.md says: secrets, installation, pushes, workloads, the end."""

import json
import os
import re
import secrets
from pathlib import Path
from typing import Any, Final

import yaml

from tests.k8s import podman
from tests.services.clients import CHECKOUT, Client, find_program
from tests.services.cluster import Cluster
from tests.services.cluster.node import Node
from tests.services.images import write_image
from tests.services.pod_image import USER
from tests.services.registry import Credentials, command

CHART: Final = CHECKOUT / "k8s/chart/edge-registry"
RELEASE: Final = "edge-registry"
WORKLOAD: Final = (CHECKOUT / "k8s/examples/registry-test.yaml").read_text()
EXAMPLE: Final = "localhost:31113/hello:latest"
SECRET: Final = "registry-pull"
KILL_AFTER: Final = 4 << 20


class Scenario:
    """The values of `k8s/scenarios/<name>.yaml`, installed by helm in the namespace that they say; files in `folder`."""

    def __init__(self, cluster: Cluster, folder: Path, name: str) -> None:
        self.cluster, self.folder, self.name = cluster, folder, name
        self.values = CHECKOUT / f"k8s/scenarios/{name}.yaml"
        found = re.search(r"^# namespace: (\S+)$", self.values.read_text(), re.MULTILINE)
        assert found is not None, f"{self.values} does not say its namespace"
        self.namespace = found[1]
        self.user = Credentials("alice", secrets.token_urlsafe(12))
        self.certificates = folder / "registry-certs"
        program = find_program("helm")
        assert program is not None, "helm is not installed"
        self._helm = Client(program, folder / "helm", environment={"KUBECONFIG": str(cluster.kubeconfig)})

    @property
    def manifests(self) -> Path:
        """The scenario as plain manifests."""
        return CHECKOUT / f"k8s/rendered/{self.name}.yaml"

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.certificates / "ca.crt"

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """kubectl in the scenario's namespace."""
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def make_namespace(self, name: str = "") -> None:
        """Makes a namespace and waits until pods can be made in it."""
        name = name or self.namespace
        self.cluster.kubectl("create", "namespace", name)
        account = ("get", "serviceaccount", "default", "-n", name)
        self.cluster.await_that(f"{name} has an account", lambda: self.cluster.attempt(*account).returncode == 0)

    def make_users(self) -> None:
        """The secret with the user."""
        file = self.folder / "htpasswd"
        command("user", "add", self.user.name, "--password-stdin", "--file", str(file), stdin=self.user.password + "\n")
        self.kubectl("create", "secret", "generic", "edge-registry-users", f"--from-file={file}")

    def make_certificates(self, *names: str) -> None:
        """The authority, and the secret with the certificate for these names."""
        options = [option for name in names for option in ("--name", name)]
        command("setup", "certs", *options, "--folder", str(self.certificates))
        pair = (f"--cert={self.certificates}/server.crt", f"--key={self.certificates}/server.key")
        self.kubectl("create", "secret", "tls", "edge-registry-tls", *pair)

    def install(self, values: dict[str, Any] | None = None, *options: str, verb: str = "install") -> None:
        """`helm install`, with the scenario's values and, over them, these; returns once all pods are ready."""
        more = self.folder / "values.json"
        more.write_text(json.dumps(values or {}))
        self._helm.run(
            *(verb, RELEASE, str(CHART), "-n", self.namespace, "-f", str(self.values), "-f", str(more)),
            *("--wait", "--timeout", "180s", *options),
        )

    def apply(self, *workloads: str) -> None:
        """`kubectl apply` of the rendered manifests, as they are; returns once it has rolled out."""
        self.cluster.kubectl("apply", "--validate=strict", "-f", str(self.manifests))
        for workload in (f"deployment/{RELEASE}", *workloads):
            self.kubectl("rollout", "status", workload, "--timeout=180s")

    def test(self) -> None:
        """`helm test`: a pod of the chart asks the registry."""
        self._helm.run("test", RELEASE, "-n", self.namespace, "--timeout", "120s")

    def uninstall(self) -> None:
        """`helm uninstall`; what it did not install stays."""
        self._helm.run("uninstall", RELEASE, "-n", self.namespace, "--wait", "--timeout", "180s")

    def push(self, layout: str, target: str, node: Node | None = None) -> None:
        """podman logs in as the user and pushes `layout` to `host:port/name:tag`; from the node, if one is given."""
        ca = self.ca if self.ca.exists() else None
        podman.push(self.folder / "podman", layout, target, self.user, ca, node)

    def make_pull_secret(self, *servers: str) -> None:
        """The secret for workloads, under all names of the registry."""
        options = [option for server in servers for option in ("--server", server)]
        made = command(
            *("pull-secret", SECRET, *options, "--user", self.user.name, "--password-stdin"),
            stdin=self.user.password + "\n",
        )
        self.kubectl("apply", "-f", "-", stdin=made)

    def run_workload(self, image: str, name: str = "registry-test") -> None:
        """The example's Deployment with this image; returns once it runs."""
        self.kubectl("apply", "-f", "-", stdin=workload(image, name))
        self.cluster.wait(f"deployment/{name}", "condition=Available", "-n", self.namespace, seconds=180)

    def run_through_a_kill(self, image: str) -> None:
        """The Deployment again, while the process that serves its pull is killed; returns once it runs all the same."""
        self._slow_down()
        self.kubectl("apply", "-f", "-", stdin=workload(image, "through-a-kill"))
        killed = self._kill_sending(KILL_AFTER)
        running = "{.status.readyReplicas}"
        assert self.kubectl("get", "deployment/through-a-kill", "-o", f"jsonpath={running}") == "", (
            "it was pulled before"
        )
        self.cluster.wait("deployment/through-a-kill", "condition=Available", "-n", self.namespace, seconds=180)
        restarts = "{.status.containerStatuses[0].restartCount}"
        self.cluster.wait(f"pod/{killed}", f"jsonpath={restarts}=1", "-n", self.namespace)

    def run_refused(self, image: str) -> None:
        """The same Deployment without the secret; returns once its pull was refused for lack of a login."""
        without = yaml.safe_load(workload(image, "without-secret"))
        assert without["spec"]["template"]["spec"].pop("imagePullSecrets") == [{"name": SECRET}]
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(without))
        self.cluster.await_that("the pull without a secret is refused", self._is_refused, 120)
        self.kubectl("delete", "deployment", "without-secret")

    def _is_refused(self) -> bool:
        """Whether the kubelet has given up for now, and because the registry knows nobody without a login."""
        pods = json.loads(self.kubectl("get", "pods", "-l", "app=without-secret", "-o", "json"))["items"]
        for pod in pods:
            states = [status["state"].get("waiting", {}) for status in pod["status"].get("containerStatuses", ())]
            about = f"--field-selector=involvedObject.name={pod['metadata']['name']}"
            said = self.kubectl("get", "events", about, "-o", "jsonpath={.items[*].message}")
            refused = "401 Unauthorized" in said or "no basic auth credentials" in said  # containerd 1.6, and 2
            if [one.get("reason") for one in states] == ["ImagePullBackOff"] and refused:
                return True
        return False

    def ask(self, url: str) -> int:
        """The status with which a pod of the cluster is answered at `url`; it trusts the authority and no other."""
        program = (
            "import os, ssl, sys, urllib.request, urllib.error\n"
            "context = ssl.create_default_context(cadata=os.environ['CA']) if os.environ['CA'] else None\n"
            "try: print(urllib.request.urlopen(sys.argv[1], context=context, timeout=10).status)\n"
            "except urllib.error.HTTPError as refusal: print(refusal.code)\n"
        )
        ca = self.ca.read_text() if self.ca.exists() else ""
        image = self.kubectl("get", f"deployment/{RELEASE}", "-o", "jsonpath={..containers[0].image}")
        return int(self.cluster.run_pod(image, "python", "-c", program, url, environment=f"CA={ca}"))

    def replicas(self) -> dict[str, str]:
        """The addresses of the registry's running pods, by name."""
        found = self.kubectl("get", "pods", "-l", "app.kubernetes.io/component=registry", "-o", "json")
        return {
            pod["metadata"]["name"]: pod["status"]["podIP"]
            for pod in json.loads(found)["items"]
            if pod["status"].get("podIP")
        }

    def _slow_down(self) -> None:
        """Lets every replica send no more than 8 MB a second, so that a pull takes some time."""
        rows = [line.split() for line in self.cluster.ctr("tasks", "list").splitlines()]
        processes = {row[0]: row[1] for row in rows}
        for name in self.replicas():
            self.cluster.node.run(
                *("nsenter", "--target", processes[self._container(name)], "--net", "tc", "qdisc", "replace"),
                *("dev", "eth0", "root", "tbf", "rate", "64mbit", "burst", "256kb", "latency", "200ms"),
            )

    def _kill_sending(self, least: int) -> str:
        """Waits until a replica has sent `least` bytes since now, and kills its process; returns the pod's name."""
        before = {name: self._sent(address) for name, address in self.replicas().items()}
        sending: list[str] = []

        def sends() -> bool:
            found = {name: self._sent(address) for name, address in self.replicas().items()}
            sending[:] = [name for name, sent in found.items() if sent - before.get(name, sent) >= least]
            return bool(sending)

        self.cluster.await_that("a replica sends", sends, 60)
        self.cluster.ctr("tasks", "kill", "--signal", "SIGKILL", self._container(sending[0]))
        return sending[0]

    def _container(self, pod: str) -> str:
        path = "jsonpath={.status.containerStatuses[0].containerID}"
        return self.kubectl("get", "pod", pod, "-o", path).removeprefix("containerd://")

    def _sent(self, address: str) -> int:
        """Bytes that the pod at `address` has sent, which the node has received on the pod's cable."""
        route = json.loads(self.cluster.node.run("ip", "-json", "route", "get", address))
        link = json.loads(self.cluster.node.run("ip", "-json", "-stats", "link", "show", "dev", route[0]["dev"]))
        return int(link[0]["stats64"]["rx"]["bytes"])


def workload(image: str, name: str) -> str:
    """The example's Deployment with another image and name."""
    assert EXAMPLE in WORKLOAD
    return WORKLOAD.replace(EXAMPLE, image).replace("registry-test", name)


def write_image_archive(folder: Path, program: Path, ballast: int = 0) -> str:
    """The workload's image with so many random bytes beside it, new each time, as podman and skopeo name it."""
    layers = [{"bin/busybox": program.read_bytes()}, {"ballast": secrets.token_bytes(ballast + 16)}]
    write_image(folder, layers)
    return f"oci:{folder}:latest"


def make_folder(node: Node, name: str) -> None:
    """`install -d -o 65532 -g 65532 -m 700` below the node's /srv."""
    folder = node.srv / name
    folder.mkdir(mode=0o700)
    os.chown(folder, USER, USER)
