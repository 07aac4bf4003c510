"""The fault front: transparent without rules, and each fault is what it says, as seen on the wire."""

import base64
import http.client
import json
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.tls.authority import make_certificates
from tests.services.client import MANIFEST, Image, digest_of, noise
from tests.services.clients import CHECKOUT, Client, find_program
from tests.services.front import Fault, Front, HubLimit, TokenService, portal, redirect, refusal
from tests.services.pushing import Answer, Pusher
from tests.services.registry import Credentials
from tests.services.upstreams import Distribution, need_distribution

pytestmark = pytest.mark.clients

SIZE = 3_000_000
BLOBS = "/v2/*/blobs/*"
MANIFESTS = "/v2/*/manifests/*"
PULL = "repository:team/app:pull"


@pytest.fixture(scope="module")
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    with Distribution(need_distribution(request), tmp_path_factory.mktemp("upstream")) as server:
        yield server


@pytest.fixture(scope="module")
def image(upstream: Distribution) -> Image:
    return upstream.pusher.image("team/app", "1", [SIZE, 10])


@pytest.fixture
def front(upstream: Distribution, image: Image) -> Iterator[Front]:
    with Front(upstream.url) as front:
        yield front


def get(front: Front, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
    return Pusher(front.url).request(method, path, headers={"Accept": MANIFEST, **(headers or {})})


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


def blob_path(image: Image) -> str:
    return f"/v2/team/app/blobs/{digest_of(image.blobs[1])}"


def broken_get(front: Front, path: str) -> tuple[int, bytes, str]:
    """The announced length of an answer that breaks off, what came of it, and how it ended."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=20)
    got, ended = b"", "whole"
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        length = int(answer.headers["Content-Length"])
        while data := answer.read1(1 << 16):
            got += data
        ended = "fin" if len(got) < length else ended
    except ConnectionResetError:
        ended = "rst"
    finally:
        connection.close()
    return length, got, ended


def login(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_crane_pulls_the_same_image_with_and_without_the_front(
    request: pytest.FixtureRequest, front: Front, upstream: Distribution, tmp_path: Path
) -> None:
    crane = find_program("crane")
    if crane is None:
        skip = pytest.fail if request.config.getoption("--require-clients") else pytest.skip
        skip("crane is not installed")
    assert crane is not None
    client = Client(crane, tmp_path / "home")
    client.run("pull", "--format=oci", f"{upstream.host}/team/app:1", str(tmp_path / "direct"))
    client.run("pull", "--format=oci", f"{front.host}/team/app:1", str(tmp_path / "fronted"))
    direct, fronted = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("direct", "fronted")
    )
    assert len(direct) >= 5
    assert direct == fronted
    assert front.sent(BLOBS) == sum(len(data) for data in client_blobs(front))


def client_blobs(front: Front) -> list[bytes]:
    paths = {request.path for request in front.records.find(BLOBS, "GET")}
    return [Pusher(front.target).request("GET", path).body for path in paths]


def test_answers_have_the_headers_of_the_registry(front: Front, upstream: Distribution, image: Image) -> None:
    for method in ("HEAD", "GET"):
        for path in (
            blob_path(image),
            "/v2/team/app/manifests/1",
            "/v2/team/app/tags/list",
            "/v2/",
            "/v2/none/tags/list",
        ):
            direct = upstream.pusher.request(method, path, headers={"Accept": MANIFEST})
            fronted = get(front, path, method=method)
            assert (fronted.status, fronted.body) == (direct.status, direct.body)
            assert {**fronted.headers, "date": ""} == {**direct.headers, "date": ""}


def test_pushes_go_through_it(front: Front, upstream: Distribution) -> None:
    pushed = Pusher(front.url).image("pushed/through", "1", [SIZE, 0])
    found = upstream.pusher.request("GET", "/v2/pushed/through/manifests/1", headers={"Accept": pushed.media_type})
    assert found.body == pushed.data
    assert (
        Pusher(front.url).request("GET", blob_path(pushed).replace("team/app", "pushed/through")).body
        == pushed.blobs[1]
    )


def test_a_body_sent_in_chunks_goes_through_it(front: Front) -> None:
    data = noise(SIZE, "chunked")
    begun = get(front, "/v2/pushed/chunks/blobs/uploads/", method="POST").headers["location"]
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=20)
    parts = urlsplit(begun)
    chunks = (data[at : at + 70_001] for at in range(0, SIZE, 70_001))
    connection.request("PUT", f"{parts.path}?{parts.query}&digest={digest_of(data)}", body=chunks, encode_chunked=True)
    assert connection.getresponse().status == 201
    connection.close()
    assert get(front, f"/v2/pushed/chunks/blobs/{digest_of(data)}").body == data


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_ends_the_connection_after_exactly_so_many_bytes(front: Front, image: Image, reset: bool) -> None:
    rule = front.on(BLOBS, Fault(cut=1_000_001, reset=reset), times=2)
    for _ in range(2):
        length, got, ended = broken_get(front, blob_path(image))
        assert (length, got, ended) == (SIZE, image.blobs[1][:1_000_001], "rst" if reset else "fin")
    assert get(front, blob_path(image)).body == image.blobs[1]
    assert rule.taken == 2
    assert [request.sent for request in front.requests] == [1_000_001, 1_000_001, SIZE]
    front.wait_until(lambda: front.requests[-1].ended is not None)
    assert [request.whole for request in front.requests] == [False, False, True]


def test_each_range_is_cut_anew_so_that_a_resuming_client_gets_on(front: Front, image: Image) -> None:
    front.on(BLOBS, Fault(cut=1_200_000))
    got = b""
    while len(got) < SIZE:
        connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=20)
        connection.request("GET", blob_path(image), headers={"Range": f"bytes={len(got)}-"})
        answer = connection.getresponse()
        assert answer.status == 206
        while data := answer.read1(1 << 16):
            got += data
        connection.close()
    assert got == image.blobs[1]
    assert [request.sent for request in front.requests] == [1_200_000, 1_200_000, SIZE - 2_400_000]


def test_a_stall_holds_back_the_rest_until_the_client_goes(front: Front, image: Image) -> None:
    front.on(BLOBS, Fault(stall=5000))
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=0.5)
    connection.request("GET", blob_path(image))
    answer = connection.getresponse()
    assert answer.read(5000) == image.blobs[1][:5000]
    with pytest.raises(TimeoutError):
        answer.read(1)
    assert front.requests[0].ended is None
    connection.close()
    answer.close()
    front.wait_until(lambda: front.requests[0].ended is not None)
    assert front.sent() == 5000


def test_a_stall_may_end(front: Front, image: Image) -> None:
    front.on(BLOBS, Fault(stall=0, stall_for=0.2))
    begun = time.monotonic()
    assert get(front, blob_path(image)).body == image.blobs[1]
    assert time.monotonic() - begun >= 0.2


def test_all_answers_share_the_rate(front: Front, image: Image) -> None:
    front.rate = 12_000_000
    begun = time.monotonic()
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: get(front, blob_path(image)), range(2)))
    assert all(answer.body == image.blobs[1] for answer in answers)
    assert time.monotonic() - begun >= 0.95 * 2 * SIZE / front.rate


def test_a_delay_does_not_disturb_a_request_with_a_body(front: Front) -> None:
    front.on("*", Fault(delay=0.1))
    begun = time.monotonic()
    Pusher(front.url).blob("pushed/slowly", noise(1_000_000, "slow"))
    assert time.monotonic() - begun >= 0.2


def test_a_rule_slows_one_answer(front: Front, image: Image) -> None:
    front.on(BLOBS, Fault(rate=10_000_000))
    begun = time.monotonic()
    get(front, blob_path(image))
    assert time.monotonic() - begun >= 0.95 * SIZE / 10_000_000


def test_a_short_answer_is_well_formed(front: Front, image: Image) -> None:
    front.on(BLOBS, Fault(short=1000), times=1)
    assert broken_get(front, blob_path(image)) == (1000, image.blobs[1][:1000], "whole")
    assert get(front, blob_path(image)).body == image.blobs[1]


def test_a_corrupt_answer_has_the_right_length(front: Front, image: Image) -> None:
    front.on(BLOBS, Fault(corrupt=SIZE - 1))
    body = get(front, blob_path(image)).body
    assert (len(body), body[:-1]) == (SIZE, image.blobs[1][:-1])
    assert body[-1] != image.blobs[1][-1]


def test_faults_of_several_rules_add_up(front: Front, image: Image) -> None:
    front.on(BLOBS, Fault(short=1000))
    wrong = front.on(BLOBS, Fault(corrupt=0))
    body = get(front, blob_path(image)).body
    assert (len(body), body[0] != image.blobs[1][0]) == (1000, True)
    front.off(wrong)
    assert get(front, blob_path(image)).body == image.blobs[1][:1000]
    front.clear()
    assert get(front, blob_path(image)).body == image.blobs[1]


def test_chunks_without_a_length(front: Front, image: Image) -> None:
    front.on("*", Fault(chunked=True))
    answer = get(front, blob_path(image))
    assert answer.body == image.blobs[1]
    assert "content-length" not in answer.headers
    assert answer.headers["transfer-encoding"] == "chunked"


def test_ranges_are_ignored_or_begin_elsewhere(front: Front, image: Image) -> None:
    front.on(BLOBS, Fault(ignore_range=True), times=1)
    whole = get(front, blob_path(image), {"Range": "bytes=1000-"})
    assert (whole.status, whole.body) == (200, image.blobs[1])
    front.on(BLOBS, Fault(shift=-10))
    shifted = get(front, blob_path(image), {"Range": "bytes=1000-"})
    assert (shifted.status, shifted.body) == (206, image.blobs[1][990:])
    assert shifted.headers["content-range"] == f"bytes 990-{SIZE - 1}/{SIZE}"


def test_portals_and_redirects(front: Front, image: Image) -> None:
    front.on("*", portal(), times=1)
    page = get(front, blob_path(image))
    assert (page.status, page.headers["content-type"], page.body[:9]) == (200, "text/html; charset=utf-8", b"<!DOCTYPE")
    front.on("*", redirect("http://169.254.169.254/latest/meta-data/", 302))
    moved = get(front, blob_path(image))
    assert (moved.status, moved.headers["location"]) == (302, "http://169.254.169.254/latest/meta-data/")


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 503])
def test_refusals_look_like_a_registry(front: Front, status: int) -> None:
    front.on(MANIFESTS, refusal(status, retry_after=7), times=1)
    answer = get(front, "/v2/team/app/manifests/1")
    assert (answer.status, answer.headers["retry-after"]) == (status, "7")
    assert json.loads(answer.body)["errors"][0]["code"]
    assert get(front, "/v2/team/app/manifests/1").status == 200


def test_a_head_can_be_refused_or_lack_its_digest(front: Front, image: Image) -> None:
    front.on(MANIFESTS, Fault(status=405), method="HEAD", times=1)
    front.on(MANIFESTS, Fault(without=("docker-content-digest",)))
    assert get(front, "/v2/team/app/manifests/1", method="HEAD").status == 405
    bare = get(front, "/v2/team/app/manifests/1", {"Accept": image.media_type}, "HEAD")
    assert (bare.status, int(bare.headers["content-length"])) == (200, len(image.data))
    assert "docker-content-digest" not in bare.headers


@pytest.mark.parametrize("how", ["close", "reset"])
def test_no_answer_at_all(front: Front, how: str) -> None:
    front.on("*", Fault(no_answer="reset" if how == "reset" else "close"), times=1)
    with pytest.raises(ConnectionResetError if how == "reset" else http.client.RemoteDisconnected):
        get(front, "/v2/")
    assert front.requests[0].status is None
    assert get(front, "/v2/").status == 200


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


def test_waiting_for_what_does_not_come_fails_with_what_came(front: Front) -> None:
    get(front, "/v2/")
    with pytest.raises(AssertionError, match="GET /v2/: 200"):
        front.wait_until(lambda: front.count("/never") > 0, timeout=0.05)


def test_a_registry_that_is_gone_looks_like_a_broken_connection(tmp_path: Path) -> None:
    with Front("http://127.0.0.1:1") as front, pytest.raises(http.client.RemoteDisconnected):
        get(front, "/v2/")


def test_it_speaks_tls(upstream: Distribution, image: Image, tmp_path: Path) -> None:
    made = make_certificates(tmp_path, ["127.0.0.1"])
    with Front(upstream.url, certificate=made.certificate, key=made.key) as front:
        front.on(BLOBS, Fault(cut=100_000), times=1)
        pusher = Pusher(front.url, ca=made.ca)
        with pytest.raises((http.client.IncompleteRead, ssl.SSLEOFError)):
            pusher.request("GET", blob_path(image))
        assert pusher.request("GET", blob_path(image)).body == image.blobs[1]
        begun = pusher.request("POST", "/v2/team/app/blobs/uploads/")
        assert begun.headers["location"].startswith(f"{front.url}/v2/")


def test_it_logs_in_to_the_registry_behind_it(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    user = Credentials("me", "secret")
    with Distribution(need_distribution(request), tmp_path, users=user, tls=True) as guarded:
        guarded.pusher.image("a", "1", [10])
        with Front(guarded.url, target_ca=guarded.ca, target_login=user) as front:
            assert get(front, "/v2/a/manifests/1").status == 200


def test_the_program_prints_what_it_counted(upstream: Distribution, image: Image) -> None:
    arguments = ("--target", upstream.url, "--cut", "1kB", "--times", "1", "--rate", "40MB")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.services.front", *arguments], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            url = json.loads(program.stdout.readline())["url"]
            with pytest.raises(http.client.IncompleteRead):
                Pusher(url).request("GET", blob_path(image))
            Pusher(url).request("GET", blob_path(image))
            program.send_signal(signal.SIGUSR1)
            counted = json.loads(program.stdout.readline())
        finally:
            program.terminate()
        assert counted["bytes_by_path"] == {blob_path(image): 1000 + SIZE}
        assert counted["by_request"] == {f"GET {blob_path(image)} 200": 2}
        assert json.loads(program.stdout.readline()) == counted
    assert program.returncode == 0
