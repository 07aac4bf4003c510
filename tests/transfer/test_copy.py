"""`edge-registry copy` from a real CNCF Distribution, behind the fault front where it matters what was asked."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.services.clients import find_program
from tests.services.front import Fault, Front, TokenService
from tests.services.nginx import Nginx
from tests.services.pushing import Pusher
from tests.services.registry import Credentials, RegistryServer, filesystem_store
from tests.services.upstreams import Distribution, need_distribution
from tests.transfer.copied import Here

KB: Final = 1000
USER: Final = Credentials("mover", "a pass word: with a colon")


class _SmallPages(Distribution):
    """One that lists seven repositories at a time."""

    def _configuration(self) -> dict[str, Any]:
        return {**super()._configuration(), "catalog": {"maxentries": 7}}


@pytest.fixture(scope="module")
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    """Tests use repositories of their own."""
    with Distribution(need_distribution(request), tmp_path_factory.mktemp("upstream")) as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    folder = tmp_path_factory.mktemp("here")
    with RegistryServer(folder, filesystem_store(folder / "data")) as found:
        yield found


@pytest.fixture
def here(
    server: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return Here(server, filesystem_store(server.folder / "data"), capsys)


@pytest.fixture
def front(upstream: Distribution) -> Iterator[Front]:
    with Front(upstream.url) as found:
        yield found


@pytest.fixture
def pusher(upstream: Distribution) -> Pusher:
    return upstream.pusher


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository that no other test uses."""
    return f"t/{request.node.name.lower().replace('_', '-')[:60].strip('-')}"


def test_a_tag_keeps_its_digest_and_loses_its_host(here: Here, front: Front, pusher: Pusher, name: str) -> None:
    image = pusher.image(name, "v1", [200 * KB, 50 * KB])
    done = here.plain(f"{front.host}/{name}:v1")
    assert done.status == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{front.host}/{name}:v1 -> {name}:v1: 250 kB copied"
    assert here.pulls(name, "v1") == image.digest


def test_what_is_here_already_is_not_fetched_again(here: Here, front: Front, pusher: Pusher, name: str) -> None:
    pusher.image(name, "v1", [100 * KB])
    assert here.plain(f"{front.host}/{name}:v1").status == 0
    front.forget()
    again = here.plain(f"{front.host}/{name}:v1")
    assert again.status == 0
    assert "up to date" in again.stdout
    assert front.count("/v2/*/blobs/*") == 0
    assert front.count(f"/v2/{name}/manifests/*", "GET") == 0


def test_a_layer_of_another_repository_here_is_linked(here: Here, front: Front, pusher: Pusher, name: str) -> None:
    pusher.image(f"{name}/one", "v1", [300 * KB], seed="same")
    assert here.plain(f"{front.host}/{name}/one:v1").status == 0
    front.forget()
    assert here.plain(f"{front.host}/{name}/one:v1", "--as", f"{name}/two").status == 0
    assert front.count("/v2/*/blobs/*", "GET") == 0
    here.pulls(f"{name}/two", "v1")


def test_an_index_comes_with_every_platform_and_its_signatures(
    here: Here, front: Front, pusher: Pusher, name: str
) -> None:
    index = pusher.index(name, "v1", {"linux/amd64": [20 * KB], "linux/arm64": [20 * KB]})
    signature = pusher.referrer(name, index)
    second = pusher.referrer(name, signature, content=b"of a signature")
    pusher.image(name, f"{index.digest.replace(':', '-')}.sig", [1 * KB], seed="cosign")
    done = here.plain(f"{front.host}/{name}:v1")
    assert done.status == 0, done.stderr
    assert here.pulls(name, "v1") == index.digest
    assert here.referrers(name, index.digest) == [signature.digest]
    assert here.referrers(name, signature.digest) == [second.digest]
    assert sorted(here.tags(name)) == sorted(["v1", f"{index.digest.replace(':', '-')}.sig"])


def test_signatures_stay_where_they_are_when_nobody_wants_them(
    here: Here, front: Front, pusher: Pusher, name: str
) -> None:
    image = pusher.image(name, "v1", [20 * KB])
    pusher.referrer(name, image)
    pusher.image(name, f"{image.digest.replace(':', '-')}.sig", [1 * KB], seed="cosign")
    assert here.plain(f"{front.host}/{name}", "--no-referrers").status == 0
    assert here.tags(name) == ["v1"]
    assert here.referrers(name, image.digest) == []


def test_one_platform_of_an_index_comes_alone_under_the_same_digest(
    here: Here, front: Front, pusher: Pusher, name: str
) -> None:
    index = pusher.index(name, "v1", {"linux/amd64": [20 * KB], "linux/arm64": [30 * KB]})
    assert here.plain(f"{front.host}/{name}:v1", "--platform", "linux/arm64").status == 0
    assert here.manifest(name, "v1") == index.data
    here.pulls(name, index.images["linux/arm64"].digest)
    assert here.manifest(name, index.images["linux/amd64"].digest) is None
    absent = here.plain(f"{front.host}/{name}:v1", "--platform", "linux/s390x", "--to", "none")
    assert absent.status == 1
    assert "there is no image for linux/s390x" in absent.stderr
    assert here.tags(f"none/{name}") == []


def test_globs_choose_tags_and_repositories(here: Here, front: Front, pusher: Pusher, name: str) -> None:
    for path, tag in (("a", "v1.0"), ("a", "v1.1"), ("a", "v2.0"), ("b/c", "v1.9")):
        pusher.image(f"{name}/{path}", tag, [1 * KB], seed=f"{path}{tag}")
    assert here.plain(f"{front.host}/{name}/*:v1.*", "--to", "globs").status == 0
    assert here.tags(f"globs/{name}/a") == ["v1.0", "v1.1"]
    assert here.tags(f"globs/{name}/b/c") == ["v1.9"]
    nothing = here.plain(f"{front.host}/{name}/a:v9*")
    assert nothing.status == 1
    assert "no image is called so" in nothing.stderr


def test_a_digest_is_copied_without_a_tag(here: Here, front: Front, pusher: Pusher, name: str) -> None:
    image = pusher.image(name, "v1", [1 * KB])
    assert here.plain(f"{front.host}/{name}@{image.digest}").status == 0
    assert here.pulls(name, image.digest) == image.digest
    assert here.tags(name) == []


def test_a_tag_that_moved_there_moves_here(here: Here, front: Front, pusher: Pusher, name: str) -> None:
    pusher.image(name, "v1", [1 * KB], seed="first")
    assert here.plain(f"{front.host}/{name}:v1").status == 0
    second = pusher.image(name, "v1", [1 * KB], seed="second")
    assert here.plain(f"{front.host}/{name}:v1").status == 0
    assert here.pulls(name, "v1") == second.digest


def test_a_whole_registry_comes_over_pages_of_its_catalog(
    here: Here, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with (
        _SmallPages(need_distribution(request), tmp_path / "old") as old,
        Front(old.url) as front,
    ):
        pushed = {f"team{n % 4}/app-{n}": old.pusher.image(f"team{n % 4}/app-{n}", "1", [n * KB]) for n in range(1, 31)}
        done = here.plain(front.host, "--to", "old", "--json")
        assert done.status == 0, done.stderr
        assert len(done.said["images"]) == done.said["copied"] == 30
        assert done.said["failed"] == 0
        assert done.said["bytes"] == done.said["bytes_received"]
        for repository, image in pushed.items():
            assert here.pulls(f"old/{repository}", "1") == image.digest
        assert front.count("/v2/_catalog") >= 5


def test_a_registry_of_this_kind_is_a_source_too(
    here: Here, upstream: Distribution, pusher: Pusher, tmp_path: Path, name: str
) -> None:
    pushed = [pusher.index(f"{name}/{number}", "1", {"linux/amd64": [number]}) for number in range(5)]
    store = filesystem_store(tmp_path / "other")
    with RegistryServer(tmp_path / "other-server", store) as other:
        assert Here(other, store, here.capsys).copy(f"{upstream.host}/{name}/*").status == 0
        done = here.copy(other.host, "--to", "ours")
        assert done.status == 0, done.stderr
        assert [here.pulls(f"ours/{name}/{number}", "1") for number in range(5)] == [index.digest for index in pushed]


def test_a_list_of_sources_may_stand_in_a_file(here: Here, front: Front, pusher: Pusher, name: str) -> None:
    for path in ("a", "b"):
        pusher.image(f"{name}/{path}", "1", [1 * KB], seed=path)
    listed = f"# the old registry\n{front.host}/{name}/a:1\n\n{front.host}/{name}/b:1  # and this\n"
    done = here.plain("--file", "-", stdin=listed)
    assert done.status == 0, done.stderr
    assert here.tags(f"{name}/a") == here.tags(f"{name}/b") == ["1"]


def test_a_dry_run_says_what_would_come_and_writes_nothing(here: Here, front: Front, pusher: Pusher, name: str) -> None:
    pusher.index(name, "v1", {"linux/amd64": [20 * KB], "linux/arm64": [30 * KB]})
    done = here.plain(f"{front.host}/{name}", "--dry-run", "--json")
    assert done.status == 0, done.stderr
    assert done.said["dry_run"] is True
    assert 50 * KB <= done.said["bytes"] < 52 * KB
    assert done.said["manifests"] == 3
    assert front.count("/v2/*/blobs/*") == 0
    assert here.tags(name) == []
    assert name not in here.catalog()


def test_an_image_that_fails_does_not_stop_the_others(here: Here, front: Front, pusher: Pusher, name: str) -> None:
    for tag in ("a", "b", "c"):
        pusher.image(name, tag, [10 * KB], seed=tag)
    front.on(f"/v2/{name}/manifests/b", Fault(status=404))
    done = here.plain(f"{front.host}/{name}", "--retries", "0")
    assert done.status == 1
    assert f"edge-registry: {front.host}/{name}:b: " in done.stderr
    assert here.tags(name) == ["a", "c"]


def test_outages_that_pass_are_waited_for(here: Here, front: Front, pusher: Pusher, name: str) -> None:
    image = pusher.image(name, "v1", [400 * KB])
    front.on(f"/v2/{name}/manifests/*", Fault(status=503), times=1)
    front.on(f"/v2/{name}/blobs/*", Fault(cut=150 * KB), times=1)
    done = here.plain(f"{front.host}/{name}:v1", "--json")
    assert done.status == 0, done.stderr
    assert here.pulls(name, "v1") == image.digest
    assert done.said["bytes_received"] == done.said["bytes"], "what broke off goes on by Range"


def test_a_password_goes_to_the_registry_over_verified_tls(
    here: Here, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    program = find_program("nginx")
    if program is None:
        pytest.skip("nginx is not installed")
    with (
        Distribution(need_distribution(request), tmp_path / "guarded", users=USER) as guarded,
        Nginx(program, tmp_path / "nginx", guarded.url) as nginx,
    ):
        image = guarded.pusher.image(name, "v1", [10 * KB])
        host = nginx.url.removeprefix("https://")
        login = ("--username", USER.name, "--password-file", "-")
        untrusted = here.copy(f"{host}/{name}:v1", *login, stdin=USER.password)
        assert untrusted.status == 1
        assert "an authority that is not trusted" in untrusted.stderr
        wrong = here.copy(f"{host}/{name}:v1", "--ca", str(nginx.ca), *login, stdin="wrong\n")
        assert wrong.status == 1
        assert "denies access" in wrong.stderr
        done = here.copy(f"{host}/{name}:v1", "--ca", str(nginx.ca), *login, stdin=f"{USER.password}\n")
        assert done.status == 0, done.stderr
        assert USER.password not in done.stdout + done.stderr
        assert here.pulls(name, "v1") == image.digest
        guarded_host = nginx.guarded_url.removeprefix("https://")
        pair = ("--cert", str(nginx.client.certificate), "--key", str(nginx.client.key))
        done = here.copy(f"{guarded_host}/{name}:v1", "--insecure", *pair, *login, "--to", "pair", stdin=USER.password)
        assert done.status == 0, done.stderr


def test_logins_of_docker_and_tokens_for_the_catalog_are_used(
    here: Here, front: Front, pusher: Pusher, name: str, tmp_path: Path
) -> None:
    pusher.image(f"{name}/a", "v1", [1 * KB])
    front.tokens = TokenService({"mover": "secret"}, anonymous=False)
    (tmp_path / ".docker").mkdir()
    auths = {front.host: {"username": "mover", "password": "secret"}}
    assert here.plain(f"{front.host}/{name}/*").status == 1, "nobody is logged in"
    (tmp_path / ".docker" / "config.json").write_text(json.dumps({"auths": auths}))
    done = here.plain(f"{front.host}/{name}/*")
    assert done.status == 0, done.stderr
    assert ("registry:catalog:*",) in {issued.scopes for issued in front.tokens.issued}
    here.pulls(f"{name}/a", "v1")


def test_a_configured_upstream_is_dialled_as_configured(here: Here, front: Front, pusher: Pusher, name: str) -> None:
    pusher.image(f"below/{name}", "v1", [1 * KB])
    upstreams = json.dumps([{"name": "up.test", "url": f"{front.url}/below"}])
    settings = {"EDGE_REGISTRY_PROXY__UPSTREAMS": upstreams}
    done = here.copy(f"up.test/{name}:v1", "--to", "configured", **settings)
    assert done.status == 0, done.stderr
    assert here.tags(f"configured/{name}") == ["v1"]
    assert here.copy(f"up.test/{name[:-1]}*", "--to", "globbed", **settings).status == 0
    assert here.tags(f"globbed/{name}") == ["v1"]
    refused = here.copy(f"up.test/{name}:v1", "--to", "up.test", **settings)
    assert refused.status == 2
    assert "is where what is cached of an upstream lies" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "name a source"),
        (("alpine:3",), "it begins with no registry"),
        (("quay.io/Upper/case",), "invalid repository name"),
        (("quay.io/../x",), "invalid repository name"),
        (("quay.io/a:b:c",), "invalid repository name"),
        (("quay.io/a/*@sha256:" + "0" * 64,), "invalid repository name"),
        (("quay.io/a:v1", "ghcr.io/b:v1", "--username", "u", "--password-file", "-"), "sources on one host"),
        (("quay.io/a:v1", "--username", "u"), "go together"),
        (("quay.io/a:v1", "quay.io/b:v1", "--as", "c"), "--as names one repository"),
        (("quay.io/a:v1", "--to", "Upper"), "invalid repository name"),
        (("quay.io/a:v1", "--platform", "arm"), "is no platform"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused_before_anybody_is_asked(
    here: Here, arguments: tuple[str, ...], complaint: str
) -> None:
    done = here.copy(*arguments, stdin="x\n")
    assert done.status == 2
    assert complaint in done.stderr
