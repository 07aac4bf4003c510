"""The fault front: transparent without rules, and each fault is what it says, as seen on the wire."""

import http.client
import json
import signal
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.tls.authority import make_certificates
from tests.services.client import MANIFEST, Image, digest_of, noise
from tests.services.clients import CHECKOUT, Client, find_program
from tests.services.conftest import BLOBS, MANIFESTS, SIZE, blob_path, broken_get, get
from tests.services.front import Fault, Front, portal, redirect, refusal
from tests.services.pushing import Pusher
from tests.services.upstreams import Distribution

pytestmark = pytest.mark.clients


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
