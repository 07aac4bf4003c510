"""Node set-up on made-up roots: what is written, what is refused, and that nothing stays."""

import json
from pathlib import Path

import pytest
import yaml

from app.nodes import setup as setups
from app.nodes.root import Root
from app.nodes.settings import NodeSettings
from app.nodes.setup import NodeSetup, Outcome
from tests.nodes.roots import HOSTS, NEW_CONTAINERD, OLD_CONTAINERD, SET_CONTAINERD, make_root, picture

ADDRESSES = {"container-registry.local": "10.99.0.5"}
K3S_THEIRS = "# of the people\nmirrors:\n    quay.io:\n        endpoint: [https://mirror.example]\n\nconfigs: # below\n"
ROOTS = {
    "old containerd": {"etc/containerd/config.toml": OLD_CONTAINERD},
    "set containerd": {"etc/containerd/config.toml": SET_CONTAINERD},
    "new containerd": {"etc/containerd/config.toml": NEW_CONTAINERD, "etc/containerd/certs.d/": ""},
    "k3s": {"etc/rancher/k3s/": "", "var/lib/rancher/k3s/": ""},
    "k3s that runs": {
        "etc/rancher/k3s/registries.yaml": K3S_THEIRS,
        "var/lib/rancher/k3s/agent/etc/containerd/certs.d/": "",
    },
    "k3s, no end of line": {"etc/rancher/k3s/registries.yaml": K3S_THEIRS.rstrip("\n")},
    "docker and podman": {
        "etc/docker/daemon.json": "{}\n",
        "etc/containers/registries.conf.d/01-theirs.conf": "# theirs\n",
    },
    "cri-o": {"etc/crio/crio.conf": "", "etc/containers/": ""},
    "hosts without end of line": {"etc/containerd/": "", "etc/hosts": "127.0.0.1 localhost\n10.0.0.1 last"},
    "hosts with odd bytes": {"etc/containerd/": "", "etc/hosts": "127.0.0.1 localhost\r\n# \u00e9\x0c\x85\r\n"},
    "no hosts": {"etc/docker/": "", "etc/hosts": ""},
}


def apply(node: Path, **given: object) -> Outcome:
    settings = NodeSettings.model_validate({"hosts": ["192.0.2.7:5045", "container-registry.local:5000"], **given})
    return NodeSetup(Root(node), {}).apply(settings)


def remove(node: Path) -> Outcome:
    return NodeSetup(Root(node), {}).remove()


@pytest.mark.parametrize("kind", ROOTS)
def test_what_was_applied_twice_and_removed_leaves_the_node_as_it_was(tmp_path: Path, ca: str, kind: str) -> None:
    node = make_root(tmp_path / "node", {"etc/hosts": HOSTS} | ROOTS[kind])
    before = picture(node)
    given = {"ca": ca, "addresses": ADDRESSES, "mirror": {"registries": ["docker.io", "*"], "upstreams": ["quay.io"]}}
    first = apply(node, **given)
    assert first.clean, first.refused
    assert first.changes
    after = picture(node)
    assert set(before) < set(after)
    assert apply(node, **given).changes == []
    assert picture(node) == after
    assert remove(node).clean
    assert picture(node) == before


def test_files_of_every_former_configuration_are_removed(node: Path, ca: str) -> None:
    make_root(node, {"etc/containerd/": "", "etc/docker/": "", "etc/rancher/k3s/": ""})
    before = picture(node)
    apply(node, ca=ca, addresses=ADDRESSES, hosts=["one.example:1"])
    apply(node, ca=ca, hosts=["two.example:2"], clients=["docker"], mirror={"registries": ["*"]})
    assert not (node / "etc/containerd/certs.d").exists()
    assert not (node / "etc/rancher/k3s/registries.yaml").exists()
    assert (node / "etc/hosts").read_text() == HOSTS
    assert (node / "etc/docker/certs.d/two.example:2/ca.crt").exists()
    remove(node)
    assert picture(node) == before


def test_absent_in_the_document_removes_everything(node: Path, ca: str) -> None:
    make_root(node, {"etc/containerd/": ""})
    before = picture(node)
    apply(node, ca=ca, addresses=ADDRESSES)
    assert picture(node) != before
    apply(node, state="absent")
    assert picture(node) == before


def test_a_foreign_folder_is_left_to_its_owner_and_the_rest_is_written(node: Path, ca: str) -> None:
    theirs = "# of the people\n"
    make_root(node, {"etc/containerd/certs.d/192.0.2.7:5045/hosts.toml": theirs})
    before = picture(node)
    outcome = apply(node, ca=ca)
    assert list(outcome.refused) == ["/etc/containerd/certs.d/192.0.2.7:5045/hosts.toml"]
    assert [path.name for path in (node / "etc/containerd/certs.d/192.0.2.7:5045").iterdir()] == ["hosts.toml"]
    assert (node / "etc/containerd/certs.d/container-registry.local:5000/hosts.toml").exists()
    remove(node)
    assert picture(node) == before


def test_a_folder_that_containerd_prefers_to_ours_is_reported(node: Path) -> None:
    make_root(node, {"etc/containerd/certs.d/192.0.2.7_5045_/hosts.toml": 'server = "https://other.example"\n'})
    (reason,) = apply(node).refused.values()
    assert "192.0.2.7_5045_" in reason


def test_what_somebody_put_in_place_of_our_file_survives_the_removal(node: Path) -> None:
    make_root(node, {"etc/containerd/": ""})
    apply(node)
    file = node / "etc/containerd/certs.d/192.0.2.7:5045/hosts.toml"
    file.write_text("# mine now\n")
    assert apply(node).refused
    remove(node)
    assert file.read_text() == "# mine now\n"
    assert not (node / "etc/containerd/certs.d/container-registry.local:5000").exists()
    assert not (node / "var/lib/edge-registry").exists()


def test_a_link_out_of_the_root_is_followed_as_on_the_node(node: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    make_root(node, {"real/containerd/": ""})
    (node / "etc/containerd").symlink_to("/real/containerd")
    (node / "etc/docker").symlink_to("../../../../../../outside")
    apply(node, clients=["containerd"])
    assert (node / "real/containerd/certs.d/192.0.2.7:5045/hosts.toml").exists()
    assert list(outside.iterdir()) == []


def test_an_entry_that_somebody_removed_comes_back_and_bytes_of_others_stay(node: Path) -> None:
    make_root(node, {"etc/docker/": ""})
    apply(node, addresses=ADDRESSES)
    (node / "etc/hosts").write_text(HOSTS + "10.2.2.2 added.lan\n")
    apply(node, addresses=ADDRESSES)
    text = (node / "etc/hosts").read_text()
    assert text.startswith(HOSTS + "10.2.2.2 added.lan\n# begin edge-registry")
    assert "10.99.0.5\tcontainer-registry.local\n" in text
    (node / "etc/hosts").write_text(text + "10.3.3.3 behind.lan\n")
    apply(node, addresses={"container-registry.local": "10.99.0.6"})
    assert (
        (node / "etc/hosts")
        .read_text()
        .endswith("10.99.0.6\tcontainer-registry.local\n# end edge-registry\n10.3.3.3 behind.lan\n")
    )
    remove(node)
    assert (node / "etc/hosts").read_text() == HOSTS + "10.2.2.2 added.lan\n10.3.3.3 behind.lan\n"


def test_a_name_that_others_give_another_address_is_refused(node: Path) -> None:
    theirs = HOSTS + "10.9.9.9 container-registry.local\n"
    make_root(node, {"etc/docker/": "", "etc/hosts": theirs})
    outcome = apply(node, addresses=ADDRESSES)
    assert "10.9.9.9" in outcome.refused["/etc/hosts"]
    assert (node / "etc/hosts").read_text() == theirs


def test_a_begin_marker_without_its_end_is_not_touched(node: Path) -> None:
    make_root(node, {"etc/docker/": ""})
    apply(node, addresses=ADDRESSES)
    file = node / "etc/hosts"
    file.write_text(file.read_text().replace("# end edge-registry\n", ""))
    damaged = file.read_bytes()
    assert "mend" in apply(node, addresses={"container-registry.local": "10.0.0.9"}).refused["/etc/hosts"]
    assert "mend" in remove(node).refused["/etc/hosts"]
    assert file.read_bytes() == damaged


def test_a_name_that_cannot_be_looked_up_keeps_its_address(node: Path, tmp_path: Path) -> None:
    make_root(node, {"etc/docker/": ""})
    file = tmp_path / "address"
    assert apply(node, addresses={"container-registry.local": {"file": str(file)}}).refused == {
        "/etc/hosts container-registry.local": "its address is not known yet"
    }
    file.write_text("10.99.0.7\n")
    assert apply(node, addresses={"container-registry.local": {"file": str(file)}}).clean
    file.unlink()
    assert apply(node, addresses={"container-registry.local": {"file": str(file)}}).changes == []
    assert "10.99.0.7" in (node / "etc/hosts").read_text()


def test_registries_of_others_are_merged_and_a_clash_is_refused(node: Path, ca: str) -> None:
    file = node / "etc/rancher/k3s/registries.yaml"
    make_root(node, {"etc/rancher/k3s/registries.yaml": K3S_THEIRS})
    outcome = apply(node, ca=ca, mirror={"registries": ["*"]})
    assert outcome.restart
    read = yaml.safe_load(file.read_text())
    assert read["mirrors"]["quay.io"] == {"endpoint": ["https://mirror.example"]}
    assert read["mirrors"]["*"] == {"endpoint": ["https://192.0.2.7:5045"]}
    assert read["configs"]["192.0.2.7:5045"]["tls"]["ca_file"] == "/etc/rancher/k3s/edge-registry/ca.crt"
    assert (node / "etc/rancher/k3s/edge-registry/ca.crt").exists()
    remove(node)
    file.write_text('mirrors: {"192.0.2.7:5045": {endpoint: ["http://192.0.2.7:5045"]}}\n')
    assert "192.0.2.7:5045" in apply(node, ca=ca).refused["/etc/rancher/k3s/registries.yaml"]


@pytest.mark.parametrize(
    "text", ["mirrors: {}\n", "mirrors: {quay.io: {endpoint: [x]}}\n", "- list\n", "a: [\n", "a: 1\n...\n"]
)
def test_registries_that_cannot_take_lines_are_refused_and_stay(node: Path, text: str) -> None:
    make_root(node, {"etc/rancher/k3s/registries.yaml": text})
    outcome = apply(node)
    assert "/etc/rancher/k3s/registries.yaml" in outcome.refused
    assert (node / "etc/rancher/k3s/registries.yaml").read_text() == text


def test_k3s_that_has_made_its_folders_of_ours_is_told_to_restart_for_changes(node: Path) -> None:
    certs = "var/lib/rancher/k3s/agent/etc/containerd/certs.d"
    make_root(node, {"etc/rancher/k3s/": "", f"{certs}/": ""})
    assert apply(node).restart == []
    assert (node / certs / "192.0.2.7:5045/hosts.toml").exists()
    for name in ("192.0.2.7:5045", "container-registry.local:5000"):
        (node / certs / name / "hosts.toml").write_text("# File generated by k3s. DO NOT EDIT.\n")
    again = apply(node)
    assert (again.clean, again.changes, again.restart) == (True, [], [])
    assert apply(node, mirror={"registries": ["quay.io"]}).restart


@pytest.mark.parametrize(
    ("config", "missing", "said"),
    [
        (OLD_CONTAINERD, True, "no config_path"),
        (
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = ""\n',
            True,
            "an empty config_path",
        ),
        ("[plugins.cri.registry.mirrors.x]\nendpoint = []\n", True, "registry.mirrors"),
        (SET_CONTAINERD, False, ""),
        (NEW_CONTAINERD, True, "no config_path"),
        ('version = 3\n[plugins."io.containerd.cri.v1.images".registry]\nconfig_path = ""\n', True, "an empty"),
    ],
)
def test_a_containerd_that_does_not_look_is_told_what_it_needs(
    node: Path, config: str, missing: bool, said: str
) -> None:
    make_root(node, {"etc/containerd/config.toml": config})
    outcome = apply(node)
    assert bool(outcome.notes) == missing
    assert said in " ".join(outcome.notes)
    assert (node / "etc/containerd/config.toml").read_text() == config


def test_files_go_where_this_containerd_looks_also_when_an_import_says_so(node: Path) -> None:
    make_root(
        node,
        {
            "etc/containerd/config.toml": 'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n',
            "etc/containerd/conf.d/x.toml": SET_CONTAINERD.replace("/etc/containerd/certs.d", "/etc/registries/"),
        },
    )
    assert apply(node).notes == []
    assert (node / "etc/registries/192.0.2.7:5045/hosts.toml").exists()


def test_the_private_key_beside_an_authority_never_reaches_a_node(node: Path, ca: str) -> None:
    make_root(node, {"etc/docker/": ""})
    apply(node, ca="-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n" + ca)
    assert "PRIVATE" not in (node / "etc/docker/certs.d/192.0.2.7:5045/ca.crt").read_text()


def test_a_line_that_others_write_at_the_same_moment_is_kept(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_root(node, {"etc/docker/": ""})
    planned, hosts = setups.plan, node / "etc/hosts"

    def plan(*arguments: object) -> object:
        found = planned(*arguments)  # type: ignore[arg-type]
        if "meanwhile" not in hosts.read_text():
            hosts.write_text(HOSTS + "10.4.4.4 meanwhile.lan\n")
        return found

    monkeypatch.setattr(setups, "plan", plan)
    assert apply(node, addresses=ADDRESSES).clean
    assert hosts.read_text().startswith(HOSTS + "10.4.4.4 meanwhile.lan\n# begin")
    remove(node)
    assert hosts.read_text() == HOSTS + "10.4.4.4 meanwhile.lan\n"


def test_the_record_names_what_is_there(node: Path) -> None:
    make_root(node, {"etc/containerd/": ""})
    apply(node, addresses=ADDRESSES, hosts=["r.example:1"])
    record = json.loads((node / "var/lib/edge-registry/node-setup.json").read_text())
    assert record["files"] == ["/etc/containerd/certs.d/r.example:1/hosts.toml"]
    assert record["edits"] == ["/etc/hosts"]
    assert "/etc/containerd/certs.d" in record["folders"]
