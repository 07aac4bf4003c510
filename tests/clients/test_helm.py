"""Helm: a chart packaged, pushed, pulled and read."""

from pathlib import Path

import pytest

from tests.clients.content import check_whole, tags_of
from tests.services.clients import Client
from tests.services.engines import MakeClient
from tests.services.registry import RegistryServer

pytestmark = pytest.mark.clients


@pytest.fixture
def helm(make_client: MakeClient, tmp_path: Path) -> Client:
    return make_client("helm", ("--registry-config", str(tmp_path / "helm.json")))


def transport(server: RegistryServer) -> list[str]:
    options = ["--ca-file", str(server.ca)] if server.ca else ["--plain-http"]
    if server.credentials:
        options += ["--username", server.credentials.name, "--password", server.credentials.password]
    return options


def test_helm_pushes_a_chart_and_pulls_the_same_one(
    helm: Client, server: RegistryServer, tmp_path: Path, repository: str
) -> None:
    helm.run("create", "greeter", cwd=tmp_path)
    helm.run("package", "greeter", "--version", "1.2.3+build.4", cwd=tmp_path)
    chart = tmp_path / "greeter-1.2.3+build.4.tgz"
    helm.run("push", *transport(server), str(chart), f"oci://{server.host}/{repository}")
    # Helm writes the "+" of a version, which no tag may hold, as "_".
    assert tags_of(server, f"{repository}/greeter") == ["1.2.3_build.4"]
    check_whole(server, f"{repository}/greeter", "1.2.3_build.4")

    target = tmp_path / "pulled"
    target.mkdir()
    reference = f"oci://{server.host}/{repository}/greeter"
    helm.run("pull", *transport(server), reference, "--version", "1.2.3+build.4", "--destination", str(target))
    assert (target / chart.name).read_bytes() == chart.read_bytes()
    assert "name: greeter" in helm.run("show", "chart", *transport(server), reference, "--version", "1.2.3+build.4")


def test_helm_is_told_that_its_password_is_wrong(helm: Client, secured: RegistryServer) -> None:
    options = ("--ca-file", str(secured.ca), "--username", "edge", "--password-stdin")
    said = helm.fail("registry", "login", *options, secured.host, stdin="a guess")
    assert "401" in said or "unauthorized" in said.lower(), said
