"""A registry that is read-only, and the commands that would bring content in."""

from pathlib import Path

import pytest

from tests.cli.conftest import Edge
from tests.services.registry import RegistryServer, filesystem_store
from tests.transfer.archives import layout, picture, tar

IMAGE = picture(b"layer")
READ_ONLY = {"EDGE_REGISTRY_REGISTRY__READ_ONLY": "true"}
COMPLAINT = (
    "registry.read_only is set, and a registry that is read-only takes nothing in; to do it all the same, set "
    "EDGE_REGISTRY_REGISTRY__READ_ONLY=false for this one command"
)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "one.tar"
    path.write_bytes(tar(layout((IMAGE, "team/one:v1"))))
    return path


def stored(folder: Path) -> list[str]:
    """The names of repositories in the store of a command."""
    return sorted(path.name for path in (folder / "registry-data" / "repositories").glob("*"))


@pytest.mark.parametrize(
    "command",
    [
        ("import", "one.tar"),
        ("copy", "127.0.0.1:1/team/one:v1", "--plain-http"),
        ("adopt",),
        ("restore", "--from", "copy"),
    ],
)
def test_commands_that_bring_content_in_are_refused_with_the_name_of_the_setting(
    edge: Edge, archive: Path, command: tuple[str, ...]
) -> None:
    (archive.parent / "copy").mkdir()
    done = edge(*command, **READ_ONLY)
    assert (done.status, done.complaint) == (2, COMPLAINT)
    assert stored(archive.parent) == []


def test_the_way_out_that_the_complaint_names_is_one(edge: Edge, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "registry.yaml").write_text("registry: {read_only: true}\n")
    assert edge("import", "one.tar", "--config", "registry.yaml").complaint == COMPLAINT
    done = edge("import", "one.tar", "--config", "registry.yaml", EDGE_REGISTRY_REGISTRY__READ_ONLY="false")
    assert done.status == 0, done.stderr
    assert stored(tmp_path) == ["team"]


def test_what_writes_nothing_is_not_refused(edge: Edge, archive: Path, tmp_path: Path) -> None:
    dry = edge("import", "one.tar", "--dry-run", **READ_ONLY)
    assert (dry.status, "team/one:v1 would be team/one:v1" in dry.stdout) == (0, True), dry.stderr
    assert stored(tmp_path) == []
    assert edge("import", "one.tar").status == 0
    for command in (("export", "team/one:v1", "-o", "out.tar"), ("backup", "--to", "copy")):
        done = edge(*command, **READ_ONLY)
        assert done.status == 0, done.stderr


def test_a_read_only_server_takes_no_archive_and_does_not_begin_to_watch(edge: Edge, archive: Path) -> None:
    folder = archive.parent
    with RegistryServer(folder / "server", {**filesystem_store(folder / "store"), **READ_ONLY}) as server:
        answer = server.request("POST", "/api/v1/import", body=archive.read_bytes())
        assert (answer.status, answer.json()["errors"][0]["message"]) == (405, "the registry is read-only")
        assert server.request("GET", "/v2/team/one/manifests/v1").status == 404
    done = edge("serve", EDGE_REGISTRY_TRANSFER__WATCH=str(folder), **READ_ONLY)
    assert (done.status, done.stderr.splitlines()[-1]) == (
        2,
        "edge-registry: transfer.watch: registry.read_only is set, and a registry that is read-only imports nothing",
    )
