"""What images of archives are called here."""

import pytest

from app.oci.errors import RegistryError
from app.proxy.namespace import Namespace
from app.proxy.settings import UpstreamSettings
from app.transfer.imports.listed import Listed
from app.transfer.imports.naming import Naming

UPSTREAMS = [
    Namespace(UpstreamSettings(name="docker.io", url="https://registry-1.docker.io")),
    Namespace(UpstreamSettings(name="private.example:8443", aliases=["mirror.example"], url="https://private.example")),
]


def called(naming: Naming, name: str, tag: str = "") -> str:
    return str(naming.called(Listed(name, tag, 0)))


@pytest.mark.parametrize(
    ("name", "plain", "with_upstreams"),
    [
        ("alpine", "library/alpine:latest", "docker.io/library/alpine:latest"),
        ("alpine:3", "library/alpine:3", "docker.io/library/alpine:3"),
        ("docker.io/library/alpine:3", "library/alpine:3", "docker.io/library/alpine:3"),
        ("index.docker.io/library/alpine:3", "library/alpine:3", "docker.io/library/alpine:3"),
        ("docker.io/alpine:3", "library/alpine:3", "docker.io/library/alpine:3"),
        ("team/app:v1", "team/app:v1", "docker.io/team/app:v1"),
        ("quay.io/org/app:v1", "org/app:v1", "org/app:v1"),
        ("quay.io/app", "app:latest", "app:latest"),
        ("private.example:8443/a/b:1", "a/b:1", "private.example_8443/a/b:1"),
        ("mirror.example/a/b:1", "a/b:1", "private.example_8443/a/b:1"),
        ("localhost:5045/team/app:v1", "team/app:v1", "team/app:v1"),
        ("localhost/app:v1", "app:v1", "app:v1"),
        ("127.0.0.1:5000/app:v1", "app:v1", "app:v1"),
        ("registry.local/team/app:v1", "team/app:v1", "team/app:v1"),
        ("localhost/team/app@sha256:" + "0" * 64, "team/app", "team/app"),
        ("quay.io/org/app:v1@sha256:" + "0" * 64, "org/app:v1", "org/app:v1"),
    ],
)
def test_an_image_is_called_what_clients_ask_for(name: str, plain: str, with_upstreams: str) -> None:
    own = ["registry.local"]
    assert called(Naming(own=own), name) == plain
    assert called(Naming(UPSTREAMS, own), name) == with_upstreams


def test_hosts_are_kept_where_that_is_wished() -> None:
    naming = Naming(UPSTREAMS, keep_host=True)
    assert called(naming, "quay.io/org/app:v1") == "quay.io/org/app:v1"
    assert called(naming, "registry.example:5000/org/app:v1") == "registry.example_5000/org/app:v1"
    assert called(naming, "docker.io/library/alpine:3") == "docker.io/library/alpine:3"
    assert called(naming, "localhost:5045/team/app:v1") == "team/app:v1"
    assert called(Naming(keep_host=True), "alpine") == "docker.io/library/alpine:latest"


def test_a_prefix_goes_before_all_names_also_of_upstreams() -> None:
    naming = Naming(UPSTREAMS, prefix="site/")
    assert called(naming, "alpine:3") == "site/library/alpine:3"
    assert called(naming, "localhost/app:v1") == "site/app:v1"
    assert called(Naming(UPSTREAMS, prefix="site", keep_host=True), "alpine:3") == "site/docker.io/library/alpine:3"


def test_a_given_name_wins_and_takes_the_tag_that_is_known() -> None:
    assert called(Naming(UPSTREAMS, given="here/app:v2"), "alpine:3") == "here/app:v2"
    assert called(Naming(UPSTREAMS, given="here/app"), "alpine:3") == "here/app:3"
    assert called(Naming(UPSTREAMS, given="here/app"), "", "v7") == "here/app:v7"
    assert called(Naming(UPSTREAMS, given="here/app"), "") == "here/app:latest"
    assert called(Naming(given="localhost:5045/here/app:v2"), "x") == "here/app:v2"
    assert called(Naming(UPSTREAMS, given="docker.io/library/alpine:3"), "x") == "docker.io/library/alpine:3"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("index.docker.io/library/alpine:3", "docker.io/library/alpine:3"),
        ("registry-1.docker.io/team/app:v1", "docker.io/team/app:v1"),
        ("Mirror.Example/a/b:1", "private.example_8443/a/b:1"),
        ("localhost:5045/mirror.example/a/b:1", "private.example_8443/a/b:1"),
        ("private.example:8443/a/b:1", "private.example_8443/a/b:1"),
    ],
)
def test_no_image_is_put_below_another_name_of_an_upstream_where_nobody_would_find_it(given: str, name: str) -> None:
    assert called(Naming(UPSTREAMS, given=given), "x") == name
    prefix, _, last = given.rpartition("/")
    if not prefix.startswith("localhost"):
        assert called(Naming(UPSTREAMS, prefix=prefix), f"localhost/{last}") == name
    assert called(Naming(UPSTREAMS), f"localhost/{given.removeprefix('localhost:5045/')}") == name


@pytest.mark.parametrize("name", ["UPPER/app", "team/a:b/c", "a//b:1", "a/../b", ":tag", "app:ta/g:x y", "@sha256:0"])
def test_names_that_no_registry_has_are_refused(name: str) -> None:
    with pytest.raises(RegistryError):
        Naming().called(Listed(name, "", 0))


def test_an_image_without_a_name_has_none() -> None:
    assert Naming().called(Listed("", "v1", 0)) is None
