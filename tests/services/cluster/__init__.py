"""A real Kubernetes of one node for tests: the programs that clusters run, in namespaces of their own."""

import os
import secrets
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app.tls.authority import make_certificates
from tests.services.archives import write_program
from tests.services.cluster import configuration
from tests.services.cluster.node import Node, Process
from tests.services.cluster.programs import built, containerd_folder, installed

START_SECONDS: Final = 90.0
RUN_SECONDS: Final = 240.0
NAMES: Final = (
    *("localhost", "127.0.0.1", configuration.API_SERVICE, "kubernetes", "kubernetes.default"),
    *("kubernetes.default.svc", "kubernetes.default.svc.cluster.local"),
)


class Cluster:
    """One node with its API server, controllers, scheduler, kubelet, kube-proxy and DNS; files are below `folder`.

    The node has its own /etc, /var, /run and network; only `address` is reached from this machine. Pods reach this
    machine at `outside`. Nothing can be pulled from elsewhere: images come by `import_image`, or from a registry that
    runs in the cluster or here. NetworkPolicies are taken, but nothing enforces them; there are no load balancers.
    `containerd` is the generation of its container runtime, 1 or 2.
    """

    def __init__(self, folder: Path, *, containerd: int = 1) -> None:
        self.folder = folder.resolve()
        self.containerd = containerd
        self._containerd: Process | None = None
        self.node = Node(self.folder / "node")
        self.kubeconfig = self.folder / "kubeconfig"

    @property
    def address(self) -> str:
        """The node's address, as this machine and the pods reach it."""
        return self.node.address

    @property
    def outside(self) -> str:
        """This machine's address, as the node and its pods reach it."""
        return self.node.outside

    @property
    def certs(self) -> Path:
        """The folder of registry hosts that the node's containerd reads, from outside."""
        return self.node.etc / configuration.CERTS.removeprefix("/etc/")

    def start(self) -> "Cluster":
        """Starts everything and returns once the node is Ready; fails with the log of what does not start."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends everything; this machine is then as it was before, but for the logs in `folder`."""
        self.node.stop()

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Runs kubectl and returns standard output; fails with both outputs where it fails."""
        done = self.attempt(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def attempt(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs kubectl, whatever comes of it."""
        return subprocess.run(
            [built("kubectl"), *arguments],
            env=os.environ | self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which kubectl, helm and the like find this cluster, and nothing of who runs the tests."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "HOME": str(self.folder),
            "KUBECACHEDIR": str(self.folder / "cache"),
        }

    def apply(self, text: str, *arguments: str) -> str:
        """`kubectl apply` with strict validation of the manifests in `text`."""
        return self.kubectl("apply", "--validate=strict", "-f", "-", *arguments, stdin=text)

    def wait(self, resource: str, condition: str, *arguments: str, seconds: int = 60) -> None:
        """`kubectl wait`: until `resource` (`pod/x`) meets `condition` (`condition=Ready`, `jsonpath=...`, `delete`).

        Fails with what happened in its namespace.
        """
        done = self.attempt("wait", resource, f"--for={condition}", f"--timeout={seconds}s", *arguments)
        if done.returncode:
            at = next((arguments[n : n + 2] for n, option in enumerate(arguments) if option == "-n"), ())
            events = self.attempt("get", "events", "--sort-by=.lastTimestamp", *at).stdout
            raise AssertionError(f"{resource} has not met {condition}: {done.stderr}\n{events[-6000:]}")

    def run_pod(self, image: str, *command: str, namespace: str = "default", environment: str = "") -> str:
        """Runs `command` in a new pod to its end and returns its output; `environment` is one `NAME=value`.

        Fails where the pod fails.
        """
        name, at = f"run-{secrets.token_hex(4)}", ("-n", namespace)
        given = [f"--env={environment}"] if environment else []
        self.kubectl("run", name, *at, f"--image={image}", "--restart=Never", *given, "--command", "--", *command)
        try:
            self.wait(f"pod/{name}", "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}=0", *at)
            return self.kubectl("logs", name, *at)
        finally:
            self.kubectl("delete", "pod", name, *at, "--wait=false")

    def import_image(self, archive: Path) -> None:
        """Gives the node's container runtime the images of an archive, docker's kind or an OCI layout."""
        self.ctr("images", "import", str(archive))

    def ctr(self, *arguments: str) -> str:
        """Runs `ctr` on the node, in Kubernetes' namespace of containerd."""
        return self.node.run(self._beside("ctr"), "-n", "k8s.io", *arguments)

    def restart_containerd(self, configuration: str) -> None:
        """Another config.toml and another process that reads it; the pods that run go on. Returns once it answers."""
        (self.node.etc / "containerd/config.toml").write_text(configuration)
        if self._containerd is not None:
            self.node.processes.remove(self._containerd)
            self._containerd.stop()
        # Its shims are found on its PATH.
        path = f"{containerd_folder(self.containerd)}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        command = (self._beside("containerd"), "--config", "/etc/containerd/config.toml")
        self._containerd = self.node.spawn("containerd", *command, environment={"PATH": path})
        self.await_that("containerd answers", self._answers)

    def await_that(self, what: str, met: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Asks until `met`; fails with `what`, or with the log of a part of the cluster that ended meanwhile."""
        deadline = time.monotonic() + seconds
        while not met():
            self.node.check_alive()
            assert time.monotonic() < deadline, f"{what} did not come true in {seconds:.0f} s; logs: {self.node.folder}"
            time.sleep(0.1)

    def __enter__(self) -> "Cluster":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        self.node.start()
        self._write_files()
        self.restart_containerd(configuration.CONTAINERDS[self.containerd])
        self._spawn_installed(*configuration.ETCD_COMMAND)
        self._spawn("kube-apiserver", *configuration.api_server(self.address), "--cert-dir", "/var/lib/kubernetes")
        self._import_pause()
        self.await_that("the API server is ready", lambda: self.attempt("get", "--raw=/readyz").returncode == 0)
        self._spawn("kube-controller-manager", *configuration.CONTROLLERS)
        self._spawn("kube-scheduler", *configuration.SCHEDULER)
        self._spawn("coredns", "-conf", "/etc/kubernetes/Corefile")
        self._spawn("kube-proxy", "--config", "/etc/kubernetes/kube-proxy.yaml")
        self._spawn(
            *("kubelet", "--kubeconfig", "/etc/kubernetes/admin.conf", "--config", "/etc/kubernetes/kubelet.yaml"),
            *("--hostname-override", configuration.NODE, "--node-ip", self.address),
        )
        self.await_that("the node is Ready", self._is_ready)

    def _is_ready(self) -> bool:
        """Whether pods can be made: the node is Ready, and their account is there."""
        path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        ready = self.attempt("get", "node", configuration.NODE, "-o", path).stdout == "True"
        return ready and self.attempt("get", "serviceaccount", "default").returncode == 0

    def _write_files(self) -> None:
        etc = self.node.etc
        files, network = etc / "kubernetes", etc / "cni/net.d"
        for made in (files, network, self.certs):
            made.mkdir(parents=True)
        make_certificates(files, [self.address, *NAMES])
        token = secrets.token_hex(16)
        (files / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        (files / "service-accounts.key").write_bytes(_private_key())
        (files / "admin.conf").write_text(configuration.kubeconfig(self.address, token, "ca.crt"))
        (files / "kubelet.yaml").write_text(configuration.kubelet(self.address, self.node.cgroup))
        (files / "kube-proxy.yaml").write_text(configuration.kube_proxy(self.address))
        (files / "Corefile").write_text(configuration.coredns(self.address))
        (network / "10-pods.conflist").write_text(configuration.NETWORK)
        self.kubeconfig.write_text(configuration.kubeconfig(self.address, token, str(files / "ca.crt")))

    def _import_pause(self) -> None:
        archive = write_program(self.folder / "pause.tar", configuration.PAUSE, [Path(built("pause"))])
        self.import_image(archive)

    def _answers(self) -> bool:
        return self.node.attempt(self._beside("ctr"), "version").returncode == 0

    def _beside(self, name: str) -> str:
        return str(containerd_folder(self.containerd) / name)

    def _spawn(self, name: str, *arguments: str) -> Process:
        return self.node.spawn(name, built(name), *arguments)

    def _spawn_installed(self, name: str, *arguments: str) -> Process:
        return self.node.spawn(name, installed(name), *arguments)


def _private_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
