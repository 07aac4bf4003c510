"""BuildKit as node-config says it should be: builds pushed, run, with attestations and caches, mounted, broken off."""

import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from app.tls.authority import make_certificates
from tests.clients.content import check_whole, is_there, manifest_of, tags_of
from tests.services.buildkit import CONFIG, Builder, StartBuilder, make_context, make_node, open_builders, push
from tests.services.engines import MakeClient
from tests.services.front import Front
from tests.services.front.records import Request
from tests.services.images import digest
from tests.services.registry import Credentials, RegistryServer, filesystem_store, s3_store

pytestmark = [pytest.mark.clients, pytest.mark.usefixtures("root")]

NAME: Final = "container-registry.test"
"""What BuildKit calls the registry: a name that no DNS server knows, and to which it speaks TLS unless told otherwise."""
CACHE_CONFIG: Final = "application/vnd.buildkit.cacheconfig.v0"
LARGE: Final = 48 << 20
ATTESTATION: Final = "application/vnd.docker.attestation.manifest.v1+json"
DOCKERFILE: Final = """\
FROM scratch
COPY busybox /bin/busybox
COPY said /etc/said
RUN ["/bin/busybox", "cp", "/etc/said", "/etc/run"]
"""
COPYING: Final = "FROM scratch\nCOPY said /etc/said\n"


@dataclass(frozen=True)
class Site:
    """A registry, and a node that knows it by its name."""

    server: RegistryServer
    node: Path

    @property
    def host(self) -> str:
        return f"{NAME}:{self.server.port}"


@pytest.fixture
def start_builder(
    need: Callable[[str], Path], need_newer: Callable[[str], Path], tmp_path: Path
) -> Iterator[StartBuilder]:
    with open_builders(need_newer("buildkit"), need("runc"), tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def plain_site(plain: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(plain, tmp_path_factory.mktemp("plain-site"))


@pytest.fixture(scope="module")
def tls_site(tmp_path_factory: pytest.TempPathFactory, minio: Any) -> Iterator[Site]:
    """On MinIO, over TLS with a certificate for NAME of our authority, with a password."""
    folder = tmp_path_factory.mktemp("tls-site")
    store = s3_store(minio.endpoint, f"buildkit-{secrets.token_hex(4)}", minio.access_key, minio.secret_key)
    server = RegistryServer(folder, store, users=Credentials("ann", secrets.token_urlsafe(16)), tls=True)
    assert server.certificates is not None
    make_certificates(server.certificates, ["127.0.0.1", NAME])
    with server:
        yield make_site(server, folder)


@pytest.fixture(params=["plain_site", "tls_site"])
def site(request: pytest.FixtureRequest) -> Site:
    """Both of them in turn."""
    found: Site = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def builder(start_builder: StartBuilder, site: Site) -> Builder:
    """A BuildKit that never built anything, logged in where that takes a password."""
    return logged_in(start_builder(site.node), site)


def make_site(server: RegistryServer, folder: Path) -> Site:
    transport = ["--ca", str(server.ca)] if server.ca else ["--plain-http"]
    host = ["--host", f"{NAME}:{server.port}", "--address", f"{NAME}=127.0.0.1"]
    return Site(server, make_node(folder, *host, *transport))


def logged_in(builder: Builder, site: Site) -> Builder:
    if site.server.credentials:
        builder.log_in(site.host, site.server.credentials)
    return builder


def make_files(busybox: bytes) -> dict[str, bytes]:
    """What DOCKERFILE wants, some of it never seen before."""
    return {"busybox": busybox, "said": secrets.token_hex(16).encode()}


def test_an_image_is_pushed_whole_and_another_client_pulls_the_same_digest(
    builder: Builder, site: Site, make_client: MakeClient, busybox: bytes, tmp_path: Path, repository: str
) -> None:
    built = builder.build(
        make_context(tmp_path / "context", DOCKERFILE, make_files(busybox)), push(f"{site.host}/{repository}:v1")
    )
    assert check_whole(site.server, repository, "v1") == built.digest
    crane = make_client("crane", environment={"SSL_CERT_FILE": str(site.server.ca)} if site.server.ca else None)
    name = f"{site.server.host}/{repository}:v1"
    if site.server.credentials:
        user = site.server.credentials
        crane.run("auth", "login", site.server.host, "-u", user.name, "--password-stdin", stdin=user.password)
    assert crane.run("digest", name) == built.digest
    crane.run("validate", "--remote", name)


def test_a_build_runs_on_an_image_that_another_builder_pushed(
    builder: Builder, start_builder: StartBuilder, site: Site, busybox: bytes, tmp_path: Path, repository: str
) -> None:
    files = make_files(busybox)
    name = f"{site.host}/{repository}"
    builder.build(make_context(tmp_path / "base", DOCKERFILE, files), push(f"{name}:base"))
    again = f'FROM {name}:base\nRUN ["/bin/busybox", "cat", "/etc/run"]\n'
    said = logged_in(start_builder(site.node), site).build(make_context(tmp_path / "next", again)).said
    assert files["said"].decode() in said


def test_without_the_sections_of_node_config_nothing_is_pushed(
    start_builder: StartBuilder, site: Site, tmp_path: Path, repository: str
) -> None:
    bare = shutil.copytree(site.node, tmp_path / "bare")
    (bare / CONFIG.lstrip("/")).write_text("")
    context = make_context(tmp_path / "context", COPYING, {"said": b"nothing"})
    said = logged_in(start_builder(bare), site).fail(context, push(f"{site.host}/{repository}:v1"))
    assert "unknown authority" in said or "HTTP response to HTTPS client" in said, said
    assert not is_there(site.server, repository, "v1")


def test_without_the_password_nothing_is_pushed(
    start_builder: StartBuilder, tls_site: Site, tmp_path: Path, repository: str
) -> None:
    context = make_context(tmp_path / "context", COPYING, {"said": b"nothing"})
    said = start_builder(tls_site.node).fail(context, push(f"{tls_site.host}/{repository}:v1"))
    assert "401" in said or "authorization failed" in said, said
    assert not is_there(tls_site.server, repository, "v1")


@pytest.mark.parametrize(
    "options", [["oci-mediatypes=false"], ["compression=zstd", "force-compression=true"], ["compression=estargz"]]
)
def test_images_of_other_formats_are_pushed_whole(
    builder: Builder, site: Site, tmp_path: Path, repository: str, options: list[str]
) -> None:
    context = make_context(tmp_path / "context", COPYING, {"said": secrets.token_bytes(1000)})
    built = builder.build(context, push(f"{site.host}/{repository}:v1", *options))
    assert check_whole(site.server, repository, "v1") == built.digest


def test_several_names_are_pushed_at_once_and_a_digest_without_a_tag(
    builder: Builder, site: Site, tmp_path: Path, repository: str
) -> None:
    context = make_context(tmp_path / "context", COPYING, {"said": secrets.token_bytes(1000)})
    both = f'"name={site.host}/{repository}:v1,{site.host}/{repository}:v2"'
    built = builder.build(context, f"--output=type=image,{both},push=true")
    assert {check_whole(site.server, repository, tag) for tag in ("v1", "v2")} == {built.digest}
    untagged = f"{repository}-untagged"
    name = f"{site.host}/{untagged}"
    built = builder.build(context, push(name, "push-by-digest=true", "name-canonical=true"))
    assert check_whole(site.server, untagged, built.digest) == built.digest
    assert tags_of(site.server, untagged) == []


@pytest.mark.parametrize("artifact", [False, True], ids=["image", "artifact"])
def test_platforms_and_their_attestations_are_pushed_whole_and_found_as_referrers(
    builder: Builder, site: Site, tmp_path: Path, repository: str, artifact: bool
) -> None:
    context = make_context(tmp_path / "context", COPYING, {"said": secrets.token_bytes(1000)})
    built = builder.build(
        context,
        "--opt=platform=linux/amd64,linux/arm64",
        "--opt=attest:provenance=mode=max",
        push(f"{site.host}/{repository}:v1", f"oci-artifact={str(artifact).lower()}"),
    )
    assert check_whole(site.server, repository, "v1") == built.digest
    _, index = manifest_of(site.server, repository, "v1")
    of = {
        child["annotations"]["vnd.docker.reference.digest"]: child["digest"]
        for child in index["manifests"]
        if child.get("annotations", {}).get("vnd.docker.reference.type") == "attestation-manifest"
    }
    assert len(of) == 2
    for image, attestation in of.items():
        found = site.server.request("GET", f"/v2/{repository}/referrers/{image}").json()["manifests"]
        assert [one["digest"] for one in found] == ([attestation] if artifact else [])
        assert {one["artifactType"] for one in found} <= {ATTESTATION}


@pytest.mark.parametrize("options", [[], ["image-manifest=false"], ["image-manifest=false", "oci-mediatypes=false"]])
def test_a_cache_in_the_registry_spares_an_empty_builder_every_step(
    builder: Builder,
    start_builder: StartBuilder,
    site: Site,
    busybox: bytes,
    tmp_path: Path,
    repository: str,
    options: list[str],
) -> None:
    context = make_context(tmp_path / "context", DOCKERFILE, make_files(busybox))
    cache = f"type=registry,ref={site.host}/{repository}:cache"
    exporting = ",".join(["--export-cache=" + cache, "mode=max", *options])
    built = builder.build(context, exporting, push(f"{site.host}/{repository}:v1"))
    check_cache(site.server, repository, "cache", index=bool(options))
    second = logged_in(start_builder(site.node), site)
    again = second.build(context, f"--import-cache={cache}", push(f"{site.host}/{repository}:v2"))
    assert cached_steps(again.said) == 3
    assert layers_of(site.server, repository, "v2") == layers_of(site.server, repository, "v1")
    assert check_whole(site.server, repository, "v2") == again.digest
    assert check_whole(site.server, repository, "v1") == built.digest


def test_a_cache_inside_the_image_spares_an_empty_builder_every_step(
    builder: Builder, start_builder: StartBuilder, site: Site, busybox: bytes, tmp_path: Path, repository: str
) -> None:
    context = make_context(tmp_path / "context", DOCKERFILE, make_files(busybox))
    name = f"{site.host}/{repository}:v1"
    builder.build(context, "--export-cache=type=inline", push(name))
    second = logged_in(start_builder(site.node), site)
    again = second.build(context, f"--import-cache=type=registry,ref={name}", push(f"{site.host}/{repository}:v2"))
    assert cached_steps(again.said) == 3
    assert check_whole(site.server, repository, "v2") == again.digest


def test_the_layers_of_a_base_that_the_builder_pushed_are_mounted_from_its_repository(
    builder: Builder, site: Site, busybox: bytes, tmp_path: Path, repository: str
) -> None:
    base = f"{site.host}/{repository}-base:v1"
    builder.build(make_context(tmp_path / "base", DOCKERFILE, make_files(busybox)), push(base))
    derived = make_context(tmp_path / "derived", f"FROM {base}\nCOPY said /etc/new\n", {"said": b"more"})
    with heard(site.server, repository) as requests:
        built = builder.build(derived, push(f"{site.host}/{repository}:v1"))
        assert check_whole(site.server, repository, "v1") == built.digest
    assert [one["status"] for one in requests if one["method"] == "POST"].count(201) == 3
    assert sum(one["received"] for one in requests) < 10_000


@pytest.mark.parametrize("step", ["LABEL a=b", "COPY --link said /etc/new"])
def test_the_layers_of_a_base_that_no_step_reads_are_mounted_and_not_even_pulled(
    builder: Builder,
    start_builder: StartBuilder,
    site: Site,
    busybox: bytes,
    tmp_path: Path,
    repository: str,
    step: str,
) -> None:
    base = f"{site.host}/{repository}-base:v1"
    builder.build(make_context(tmp_path / "base", DOCKERFILE, make_files(busybox)), push(base))
    derived = make_context(tmp_path / "derived", f"FROM {base}\n{step}\n", {"said": b"more"})
    with heard(site.server, repository) as requests:
        built = logged_in(start_builder(site.node), site).build(derived, push(f"{site.host}/{repository}:v1"))
    assert check_whole(site.server, repository, "v1") == built.digest
    assert [one["status"] for one in requests if one["method"] == "POST"].count(201) == 3
    assert sum(one["received"] + one["sent"] for one in requests) < 10_000


@pytest.mark.parametrize("victim", ["BuildKit", "the registry"])
def test_a_push_in_which_one_side_was_killed_is_whole_when_it_is_repeated(
    start_builder: StartBuilder, tmp_path: Path, repository: str, victim: str
) -> None:
    context = make_context(tmp_path / "context", COPYING, {"said": secrets.token_bytes(LARGE)})
    server = RegistryServer(tmp_path / "server", filesystem_store(tmp_path / "data"))
    with server, Front(server.url) as front, ThreadPoolExecutor() as pool:
        builder = start_builder(make_node(tmp_path, "--host", front.host, "--plain-http"))
        pushing = push(f"{front.host}/{repository}:v1", "compression=uncompressed")
        pushed = pool.submit(builder.try_build, context, pushing)
        front.wait_until(lambda: bool(large_puts(front)))
        if victim == "BuildKit":
            builder.daemon.kill()
            front.cut_all()
            assert pushed.result() is None
            assert not is_there(server, repository, "v1")
            builder.daemon.start()
        else:
            server.kill()
            front.wait_until(lambda: large_puts(front)[0].ended is not None)
            server.start()
            pushed.result()  # goes on by itself where the registry is back within seven seconds
        assert large_puts(front)[0].status is None, "the kill came too late"
        built = builder.build(context, pushing)
        assert check_whole(server, repository, "v1") == built.digest


def large_puts(front: Front) -> list[Request]:
    return [one for one in front.records.find(method="PUT") if int(one.headers.get("content-length", 0)) > LARGE]


@contextmanager
def heard(server: RegistryServer, repository: str) -> Iterator[list[dict[str, Any]]]:
    """A list that holds, afterwards, what the registry logged meanwhile of each request about blobs and uploads there.

    Repositories whose names begin so count as well. Reading something last makes the log complete.
    """
    found: list[dict[str, Any]] = []
    before = len(server.read_log())
    yield found
    server.request("GET", "/v2/")
    lines = [json.loads(line) for line in server.read_log()[before:].splitlines() if line.startswith("{")]
    found += [
        line
        for line in lines
        if line["path"].startswith(f"/v2/{repository}") and "/blobs/" in line["path"] and "buildkit" in line["agent"]
    ]


def check_cache(server: RegistryServer, repository: str, tag: str, *, index: bool) -> None:
    """Fails where the cache is of another shape, or any of its blobs is not whole."""
    _, cache = manifest_of(server, repository, tag)
    if not index:
        assert cache["config"]["mediaType"] == CACHE_CONFIG
        check_whole(server, repository, tag)
        return
    assert CACHE_CONFIG in {one["mediaType"] for one in cache["manifests"]}
    assert len(cache["manifests"]) == 4
    for one in cache["manifests"]:
        answer = server.request("GET", f"/v2/{repository}/blobs/{one['digest']}")
        assert (answer.status, len(answer.body), digest(answer.body)) == (200, one["size"], one["digest"])


def cached_steps(said: str) -> int:
    return len(re.findall(r"^#\d+ CACHED$", said, re.MULTILINE))


def layers_of(server: RegistryServer, repository: str, tag: str) -> list[str]:
    return [layer["digest"] for layer in manifest_of(server, repository, tag)[1]["layers"]]
