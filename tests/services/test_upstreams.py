"""The upstreams that tests pull from: what was pushed is there, a proxy pulls it, nginx asks for what it should."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.client import INDEX
from tests.services.clients import find_program
from tests.services.front import Front
from tests.services.images import write_index
from tests.services.nginx import Nginx
from tests.services.pushing import Pusher
from tests.services.registry import Credentials, RegistryServer, filesystem_store
from tests.services.upstreams import Distribution, need_distribution

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def program(request: pytest.FixtureRequest) -> Path:
    return need_distribution(request)


@pytest.fixture
def nginx(request: pytest.FixtureRequest, upstream: Distribution, tmp_path: Path) -> Iterator[Nginx]:
    found = find_program("nginx")
    if found is None:
        skip = pytest.fail if request.config.getoption("--require-clients") else pytest.skip
        skip("nginx is not installed")
    assert found is not None
    with Nginx(found, tmp_path, upstream.url) as server:
        yield server


def test_an_index_and_its_layers_can_be_pulled(upstream: Distribution) -> None:
    index = upstream.pusher.index("many", "1", {"linux/amd64": [100, 200], "linux/arm64": [300]})
    assert upstream.pusher.request("GET", "/v2/many/manifests/1", headers={"Accept": INDEX}).body == index.data
    arm = index.images["linux/arm64"]
    found = upstream.pusher.request("GET", f"/v2/many/manifests/{arm.digest}", headers={"Accept": arm.media_type})
    assert found.body == arm.data
    assert [len(data) for data in arm.blobs[1:]] == [300]


def test_a_layout_can_be_pulled(upstream: Distribution, tmp_path: Path) -> None:
    layout = write_index(tmp_path / "layout", {"amd64": [{"etc/a": b"a"}], "arm64": [{"etc/b": b"b"}]})
    digest = upstream.pusher.layout("of/files", layout, "2")
    found = upstream.pusher.request("GET", "/v2/of/files/manifests/2", headers={"Accept": INDEX})
    assert found.headers["docker-content-digest"] == digest
    blob = upstream.pusher.request("GET", f"/v2/of/files/blobs/{layout.layers[1]}")
    assert blob.body == layout.blob(layout.layers[1])


def test_referrers_stand_under_a_tag_where_there_is_no_api(upstream: Distribution) -> None:
    image = upstream.pusher.image("signed", "1", [10])
    made = [upstream.pusher.referrer("signed", image, content=content) for content in (b"one", b"two")]
    tag = image.digest.replace(":", "-")
    found = upstream.pusher.request("GET", f"/v2/signed/manifests/{tag}", headers={"Accept": INDEX})
    assert [entry["digest"] for entry in json.loads(found.body)["manifests"]] == [one.digest for one in made]


def test_an_edge_registry_can_be_the_upstream_and_lists_referrers(tmp_path: Path) -> None:
    with RegistryServer(tmp_path, filesystem_store(tmp_path / "data")) as server:
        pusher = Pusher(server.url)
        image = pusher.image("signed", "1", [10])
        made = pusher.referrer("signed", image)
        found = pusher.request("GET", f"/v2/signed/referrers/{image.digest}")
        assert [entry["digest"] for entry in json.loads(found.body)["manifests"]] == [made.digest]
        assert pusher.request("GET", f"/v2/signed/manifests/{image.digest.replace(':', '-')}").status == 404


def test_a_password_and_tls_are_asked_for(program: Path, tmp_path: Path) -> None:
    user = Credentials("me", "secret")
    with Distribution(program, tmp_path, users=user, tls=True) as server:
        server.pusher.image("mine", "1", [10])
        assert Pusher(server.url, ca=server.ca).request("GET", "/v2/mine/manifests/1").status == 401
        with pytest.raises(ssl.SSLCertVerificationError):
            Pusher(server.url).request("GET", "/v2/")


def test_distribution_pulls_through_and_logs_in(program: Path, upstream: Distribution, tmp_path: Path) -> None:
    image = upstream.pusher.image("behind", "1", [100_000])
    user = Credentials("me", "secret")
    with Front(upstream.url) as front:
        front.login = user
        with Distribution(program, tmp_path, proxy=front.url, proxy_login=user) as proxy:
            found = proxy.pusher.request("GET", "/v2/behind/manifests/1", headers={"Accept": image.media_type})
            assert found.body == image.data
            assert front.count("/v2/behind/manifests/1") > 0


def test_what_distribution_holds_survives_a_restart(program: Path, tmp_path: Path) -> None:
    server = Distribution(program, tmp_path)
    with server:
        image = server.pusher.image("kept", "1", [10])
    with server:
        found = server.pusher.request("GET", "/v2/kept/manifests/1", headers={"Accept": image.media_type})
        assert found.body == image.data


@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("guarded", [False, True])
def test_nginx_offers_four_kinds_of_tls(nginx: Nginx, *, verified: bool, guarded: bool) -> None:
    context = ssl.create_default_context(cafile=nginx.ca if verified else None)
    if not verified:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if guarded:
        context.load_cert_chain(nginx.client.certificate, nginx.client.key)
    url = nginx.guarded_url if guarded else nginx.url
    with urllib.request.urlopen(url + "/v2/", timeout=20, context=context) as answer:
        assert answer.status == 200
        assert answer.headers.get("X-Client-Verify", "NONE") == ("SUCCESS" if guarded else "NONE")


def test_nginx_refuses_clients_without_a_certificate_where_it_demands_one(nginx: Nginx) -> None:
    context = ssl.create_default_context(cafile=nginx.ca)
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(nginx.guarded_url + "/v2/", timeout=20, context=context)
    with refusal.value:
        assert refusal.value.code == 400
        assert refusal.value.headers["Content-Type"] == "text/html"


def test_nginx_is_not_trusted_without_its_authority(nginx: Nginx) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        Pusher(nginx.url).request("GET", "/v2/")


def test_pushes_go_through_nginx(nginx: Nginx, upstream: Distribution) -> None:
    pusher = Pusher(nginx.url, ca=nginx.ca)
    image = pusher.image("through/nginx", "1", [2_000_000])
    found = upstream.pusher.request("GET", "/v2/through/nginx/manifests/1", headers={"Accept": image.media_type})
    assert found.body == image.data
