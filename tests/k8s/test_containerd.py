"""Where a real containerd 2 looks for registries when the kubelet pulls: where node set-up and doctor say that it does."""

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from app.nodes import detection
from app.nodes.lookup import CERTS
from app.nodes.root import Root
from app.tls.authority import make_certificates
from tests.k8s.traces import Traces
from tests.services.client import INDEX, MANIFEST, make_index
from tests.services.cluster import Cluster, configuration
from tests.services.cluster.programs import PLUGINS, built, containerd_folder
from tests.services.images import Layout, write_image
from tests.services.pushing import Pusher
from tests.services.registry import RegistryServer, command, filesystem_store

pytestmark = pytest.mark.cluster

TOLD: Final = f"config_path = '{CERTS}'"
DROP_IN: Final = "containerd/conf.d/registries.toml"


def printed() -> str:
    """What `containerd config default` prints, but for the places and limits of this node."""
    program = containerd_folder(2) / "containerd"
    text = subprocess.run([program, "config", "default"], capture_output=True, text=True, check=True).stdout
    changes = {
        "bin_dirs = ['/opt/cni/bin']": f"bin_dirs = ['{PLUGINS}']",
        "restrict_oom_score_adj = false": "restrict_oom_score_adj = true",
        "registry.k8s.io/pause:3.10.2": configuration.PAUSE,
    }
    for before, after in changes.items():
        assert before in text, f"containerd prints no {before} any more"
        text = text.replace(before, after)
    return text


def told(config_path: str | None) -> str:
    """A config.toml of version 3 with this `config_path`, or without any."""
    assert TOLD in configuration.CONTAINERDS[2]
    return configuration.CONTAINERDS[2].replace(TOLD, "" if config_path is None else f"config_path = '{config_path}'")


CONFIGS: Final[dict[str, tuple[Callable[[], str], bool]]] = {
    "as it is printed": (printed, False),
    "printed, with the older way to pull": (
        lambda: printed().replace("use_local_image_pull = false", "use_local_image_pull = true"),
        True,
    ),
    "one folder": (lambda: told(CERTS), True),
    "two folders": (lambda: told(f"{CERTS}:/etc/docker/certs.d"), False),
    "none": (lambda: told(None), False),
    "one folder, as containerd 1.6 is told": (lambda: configuration.CONTAINERDS[1], True),
}
"""config.toml, and whether certs.d is read with it."""


class Site:
    """A registry outside of the cluster, over TLS with an authority of its own, of which the node was told."""

    def __init__(self, cluster: Cluster, server: RegistryServer, folder: Path) -> None:
        self.cluster, self.host, self.folder = cluster, f"{cluster.outside}:{server.port}", folder
        self.pusher = Pusher(server.url, ca=server.ca)
        self._pods = 0

    def push(self, tag: str) -> Layout:
        """A new image of the workload's program."""
        fresh = {"ballast": secrets.token_bytes(16)}
        image = write_image(self.folder / tag, [{"bin/busybox": Path(built("hello")).read_bytes()}, fresh])
        self.pusher.layout("hello", image, tag)
        return image

    def pulls(self, tag: str = "") -> bool:
        """Whether `hello` with this tag, or a new image, is pulled; its pod stays.

        Fails where anything but the authority is the trouble.
        """
        self._pods += 1
        if not tag:
            tag = f"new-{self._pods}"
            self.push(tag)
        self.cluster.kubectl("run", self.pod, f"--image={self.host}/hello:{tag}", "--restart=Never")
        self.cluster.await_that("the pull ends", lambda: self._waits_for() not in (None, "ContainerCreating"))
        if self._waits_for() == "":
            return True
        events = self.cluster.kubectl("get", "events", f"--field-selector=involvedObject.name={self.pod}")
        assert "certificate signed by unknown authority" in events
        return False

    @property
    def pod(self) -> str:
        """The last pod."""
        return f"looks-{self._pods}"

    def container(self) -> str:
        """The container of the last pod, while it runs."""
        path = "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state.running}"
        identity, _, running = self.cluster.kubectl("get", "pod", self.pod, "-o", path).partition(" ")
        assert running, f"{self.pod} does not run"
        return identity

    def _waits_for(self) -> str | None:
        """For what the last pod's container waits; "" when it runs; None before anything is known."""
        pod = json.loads(self.cluster.kubectl("get", "pod", self.pod, "-o", "json"))
        states = [one["state"] for one in pod["status"].get("containerStatuses", ())]
        return str(states[0].get("waiting", {}).get("reason", "")) if states else None


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    settings = {
        "EDGE_REGISTRY_HTTP__HOST": "0.0.0.0",
        "EDGE_REGISTRY_AUTH__ANONYMOUS": "push",
        "EDGE_REGISTRY_REGISTRY__ALLOW_SPARSE": "true",
    }
    server = RegistryServer(tmp_path / "registry", filesystem_store(tmp_path / "data"), tls=True, settings=settings)
    assert server.certificates is not None
    make_certificates(server.certificates, [cluster.outside, "127.0.0.1"])
    document = tmp_path / "nodes.yaml"
    root = str(cluster.node.folder)
    with server:
        document.write_text(yaml.safe_dump({"hosts": [f"{cluster.outside}:{server.port}"], "ca_file": str(server.ca)}))
        command("node-setup", "apply", "--root", root, "--config", str(document))
        yield Site(cluster, server, tmp_path)
        command("node-setup", "remove", "--root", root)
        (cluster.node.etc / DROP_IN).unlink(missing_ok=True)
        cluster.restart_containerd(configuration.CONTAINERDS[cluster.containerd])


def test_the_kubelets_pulls_look_into_certs_d_exactly_where_we_say_so(
    cluster: Cluster, before: Traces, site: Site
) -> None:
    node, pods = Root(cluster.node.folder), []
    for what, (config, looks) in CONFIGS.items():
        cluster.restart_containerd(config())
        assert site.pulls() is looks, what
        assert (detection.look(node, (2, 4)).missing is None) is looks, what
        pods.append(site.pod)
    running = site.container()

    cluster.restart_containerd(printed())
    said = detection.look(node)
    assert said.missing is not None
    (cluster.node.etc / DROP_IN).parent.mkdir(exist_ok=True)
    (cluster.node.etc / DROP_IN).write_text(said.missing)
    cluster.restart_containerd(printed())
    assert detection.look(node).missing is None
    assert site.container() == running, "the pods did not go on"
    assert site.pulls()
    cluster.kubectl("delete", "pod", "--now", *pods, site.pod)
    (cluster.node.etc / DROP_IN).unlink()
    (cluster.node.etc / DROP_IN).parent.rmdir()


def test_the_kubelet_pulls_its_platform_of_an_index_whose_other_one_is_not_there(
    cluster: Cluster, before: Traces, site: Site
) -> None:
    here = site.push("here")
    manifest = {"mediaType": MANIFEST, "size": len(here.blob(here.digest))}
    children = [
        {**manifest, "digest": f"sha256:{secrets.token_hex(32)}", "platform": {"os": "linux", "architecture": "arm64"}},
        {**manifest, "digest": here.digest, "platform": {"os": "linux", "architecture": "amd64"}},
    ]
    site.pusher.manifest("hello", "sparse", make_index(children), INDEX)
    assert site.pulls("sparse")
    cluster.kubectl("delete", "pod", "--now", site.pod)
