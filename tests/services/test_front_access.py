"""The fault front asks who is there, sends clients elsewhere, counts pulls, and goes down."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.services.client import Image
from tests.services.conftest import BLOBS, PULL, SIZE, blob_path, broken_get, get, login
from tests.services.front import Fault, Front, HubLimit, TokenService
from tests.services.pushing import Pusher
from tests.services.registry import Credentials
from tests.services.upstreams import Distribution, need_distribution

pytestmark = pytest.mark.clients


def is_silent(front: Front) -> bool:
    """Whether a new client hears nothing for half a second."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=0.5)
    try:
        connection.request("GET", "/v2/")
        connection.getresponse()
    except TimeoutError:
        return True
    finally:
        connection.close()
    return False


def test_anonymous_tokens_are_asked_for_and_expire(front: Front, image: Image) -> None:
    front.tokens = service = TokenService(anonymous=("team/*",))
    refused = get(front, blob_path(image))
    assert refused.status == 401
    challenge = f'Bearer realm="{front.url}/token",service="front.example",scope="{PULL}"'
    assert refused.headers["www-authenticate"] == challenge
    token = json.loads(get(front, f"/token?service=front.example&scope={PULL}").body)["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert get(front, blob_path(image), bearer).body == image.blobs[1]
    assert get(front, "/v2/other/app/manifests/1", bearer).status == 401
    service.revoke()
    assert 'error="invalid_token"' in get(front, blob_path(image), bearer).headers["www-authenticate"]
    service.life = -1.0
    dead = json.loads(get(front, f"/token?scope={PULL}").body)["token"]
    assert get(front, blob_path(image), {"Authorization": f"Bearer {dead}"}).status == 401
    assert [(given.user, given.scopes) for given in service.issued] == [(None, (PULL,))] * 2
    assert front.count("/token") == 2


def test_tokens_for_users_by_get_post_and_refresh(front: Front, image: Image) -> None:
    front.tokens = service = TokenService({"me": "secret"}, anonymous=False, field="access_token")
    assert get(front, "/token", login("me", "wrong")).status == 401
    assert get(front, "/token").status == 401
    given = json.loads(get(front, f"/token?scope={PULL}&offline_token=true", login("me", "secret")).body)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = f"grant_type=refresh_token&refresh_token={given['refresh_token']}&scope={PULL}".encode()
    again = json.loads(Pusher(front.url).request("POST", "/token", headers=form, body=body).body)
    for answer in (given, again):
        bearer = {"Authorization": f"Bearer {answer['access_token']}"}
        assert get(front, blob_path(image), bearer).status == 200
    assert [(one.method, one.grant, one.user) for one in service.issued] == [
        ("GET", "basic", "me"),
        ("POST", "refresh_token", "me"),
    ]
    assert service.refused == 2
    service.post = False
    assert Pusher(front.url).request("POST", "/token", headers=form, body=body).status == 404


def test_a_password_is_asked_for_and_not_passed_on(front: Front, image: Image) -> None:
    front.login = Credentials("me", "secret")
    refused = get(front, blob_path(image))
    assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Basic realm="front"')
    assert get(front, blob_path(image), login("me", "wrong")).status == 401
    assert get(front, blob_path(image), login("me", "secret")).body == image.blobs[1]
    assert front.records.totals()["authorized"] == 2


def test_rules_for_bodies_wait_for_a_request_that_is_let_in(front: Front, image: Image) -> None:
    front.login = Credentials("me", "secret")
    rule = front.on(BLOBS, Fault(short=7), times=1)
    assert get(front, blob_path(image)).status == 401
    assert rule.taken == 0
    assert get(front, blob_path(image), login("me", "secret")).body == image.blobs[1][:7]


def test_redirected_blobs_refuse_authorization_and_expire(front: Front, image: Image) -> None:
    front.on(BLOBS, Fault(elsewhere="host"), method="GET")
    moved = get(front, blob_path(image))
    location = moved.headers["location"]
    assert moved.status == 307
    assert location.startswith(front.elsewhere_url + "/elsewhere/v2/team/app/blobs/")
    other = Pusher(front.elsewhere_url)
    assert other.request("GET", location, headers={"Range": "bytes=5-9"}).body == image.blobs[1][5:10]
    both = other.request("GET", location, headers=login("me", "secret"))
    assert (both.status, b"Only one auth mechanism" in both.body) == (400, True)
    assert other.request("GET", location.replace("X-Signature=", "X-Signature=0")).status == 403
    assert other.request("GET", blob_path(image)).status == 404
    front.clear()
    front.on(BLOBS, Fault(elsewhere="host", life=-1))
    late = other.request("GET", get(front, blob_path(image)).headers["location"])
    assert (late.status, b"Request has expired" in late.body) == (403, True)
    assert front.count("/elsewhere/*") == 4


def test_a_redirect_may_be_relative_and_the_content_cut_there(front: Front, image: Image) -> None:
    front.on(BLOBS, Fault(elsewhere="relative"))
    front.on("*/blobs/*", Fault(cut=100), times=1)
    location = get(front, blob_path(image)).headers["location"]
    assert location.startswith("/elsewhere/v2/")
    assert broken_get(front, location) == (SIZE, image.blobs[1][:100], "fin")
    assert get(front, location).body == image.blobs[1]


def test_pulls_are_counted_as_docker_hub_counts_them(front: Front) -> None:
    front.hub = HubLimit(limit=2, retry_after=60)
    left = []
    for method in ("HEAD", "GET", "HEAD", "GET", "GET", "HEAD"):
        answer = get(front, "/v2/team/app/manifests/1", method=method)
        assert answer.headers["ratelimit-limit"] == "2;w=21600"
        left.append((answer.status, answer.headers["ratelimit-remaining"]))
    assert left == [
        (200, "2;w=21600"),
        (200, "1;w=21600"),
        (200, "1;w=21600"),
        (200, "0;w=21600"),
        (429, "0;w=21600"),
        (200, "0;w=21600"),
    ]


def test_it_goes_down_and_comes_back_at_the_same_port(front: Front) -> None:
    url = front.url
    kept = http.client.HTTPConnection("127.0.0.1", front.port, timeout=20)
    kept.request("GET", "/v2/")
    assert kept.getresponse().read() == b"{}"
    front.down()
    with pytest.raises(ConnectionRefusedError):
        get(front, "/v2/")
    assert kept.sock is not None
    with pytest.raises(ConnectionResetError):
        kept.sock.recv(1)
    kept.close()
    front.up()
    assert front.url == url
    assert get(front, "/v2/").status == 200


@pytest.mark.parametrize("how", ["silent", "blackhole"])
def test_silence_freezes_what_runs_and_what_comes(front: Front, image: Image, how: str) -> None:
    front.on(BLOBS, Fault(rate=10_000_000))
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(get, front, blob_path(image))
        front.wait_until(lambda: front.sent() > 100_000)
        front.down("silent" if how == "silent" else "blackhole")
        silent, frozen, done = is_silent(front), front.sent(), running.done()
        front.up()
        assert (silent, frozen < SIZE, done) == (True, True, False)
        assert running.result(20).body == image.blobs[1]
    assert get(front, "/v2/").status == 200


def test_it_logs_in_to_the_registry_behind_it(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    user = Credentials("me", "secret")
    with Distribution(need_distribution(request), tmp_path, users=user, tls=True) as guarded:
        guarded.pusher.image("a", "1", [10])
        with Front(guarded.url, target_ca=guarded.ca, target_login=user) as front:
            assert get(front, "/v2/a/manifests/1").status == 200
