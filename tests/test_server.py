"""The process: how it drains, serves with workers, times out, speaks TLS, and what it logs."""

import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.services.minio import free_port
from tests.services.registry import (
    CHECKOUT,
    PROGRAM,
    Credentials,
    RegistryServer,
    command,
    filesystem_store,
    own_environment,
)

HTTP = "EDGE_REGISTRY_HTTP__"
DATA = b"layer" * 1000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"

Start = Callable[..., RegistryServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(NAME="value", users=..., tls=...)`: a running server; names are settings below `http`."""
    servers: list[RegistryServer] = []

    def start(*, users: Credentials | None = None, tls: bool = False, **given: str) -> RegistryServer:
        settings = {HTTP + name: text for name, text in given.items()} | {"EDGE_REGISTRY_LOG__FORMAT": "json"}
        if users is None:
            settings["EDGE_REGISTRY_AUTH__ANONYMOUS"] = "push"
        store = filesystem_store(tmp_path / "data")
        server = RegistryServer(tmp_path / f"server-{len(servers)}", store, users=users, tls=tls, settings=settings)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.kill()


def until(holds: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Waits until something that another process does has happened."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def status(server: RegistryServer, path: str) -> int:
    """The status of a GET on a connection of its own; 0 where none is accepted."""
    try:
        return server.request("GET", path).status
    except OSError:
        return 0


def logged(server: RegistryServer) -> list[dict[str, object]]:
    """The structured lines of the log."""
    return [json.loads(line) for line in server.read_log().splitlines() if line.startswith("{")]


def test_a_server_that_drains_fails_readiness_and_ends_what_runs(start: Start) -> None:
    server = start(DRAIN_DELAY="1.5", DRAIN_TIMEOUT="20")
    push = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    push.putrequest("POST", f"/v2/app/blobs/uploads/?digest={DIGEST}")
    push.putheader("Content-Length", str(len(DATA)))
    push.endheaders(DATA[:100])
    os.kill(server.pid, signal.SIGTERM)
    until(lambda: status(server, "/readyz") == 503, "readiness never failed", 1.4)
    assert status(server, "/livez") == 200
    assert server.request("GET", "/v2/").status == 200
    until(lambda: status(server, "/livez") == 0, "the server still listens")
    push.send(DATA[100:])
    assert push.getresponse().status == 201
    push.close()
    assert server.stop() in (0, -signal.SIGTERM)
    assert "Traceback" not in server.read_log()


def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    server = start(DRAIN_DELAY="30", DRAIN_TIMEOUT="30")
    os.kill(server.pid, signal.SIGTERM)
    until(lambda: status(server, "/readyz") == 503, "readiness never failed")
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 10
    assert "Traceback" not in server.read_log()


def workers_of(server: RegistryServer) -> set[int]:
    """The worker processes of a parent."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return {int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()}


def requests_counted(server: RegistryServer) -> float:
    """How many requests to /v2/ `/metrics` counts, over all workers."""
    text = server.request("GET", "/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith("registry_http_requests_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'handler="base"' in line)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
def test_workers_share_the_port_add_up_and_are_replaced(start: Start) -> None:
    server = start(WORKERS="2")
    until(lambda: len(workers_of(server)) == 2, "two workers never ran")
    assert server.request("POST", f"/v2/app/blobs/uploads/?digest={DIGEST}", body=DATA).status == 201
    for _ in range(30):
        assert server.request("GET", "/v2/").status == 200
    assert requests_counted(server) == 30
    before = workers_of(server)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(workers_of(server) - {victim}) == 2, "the dead worker was not replaced")
    assert workers_of(server) & before == before - {victim}
    until(lambda: status(server, "/readyz") == 200, "the server is not ready again")
    assert server.request("GET", f"/v2/app/blobs/{DIGEST}").body == DATA
    assert requests_counted(server) == 30
    rest = workers_of(server)
    assert server.stop() == 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in rest)
    assert "Traceback" not in server.read_log()


def test_workers_say_once_that_the_store_is_not_there(tmp_path: Path) -> None:
    settings = {
        f"{HTTP}WORKERS": "2",
        f"{HTTP}PORT": "0",
        "EDGE_REGISTRY_STORAGE__S3__ENDPOINT": "http://127.0.0.1:1",
        "EDGE_REGISTRY_STORAGE__S3__ACCESS_KEY": "key",
        "EDGE_REGISTRY_STORAGE__S3__SECRET_KEY": "hush-hush",
    }
    done = subprocess.run(
        [*PROGRAM, "serve"],
        cwd=CHECKOUT,
        env=own_environment(settings) | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "hush" not in done.stderr


@pytest.mark.parametrize("sent", [b"", b"GET /v2/ HTTP/1.1\r\nHost: a\r\n", b"G", b"\r\n"])
def test_headers_that_never_end_close_the_connection(start: Start, sent: bytes) -> None:
    server = start(HEADER_TIMEOUT="0.5")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        slow.sendall(sent)
        began = time.monotonic()
        with suppress(ConnectionResetError):
            assert slow.recv(1000) == b""
        assert 0.2 < time.monotonic() - began < 5
    assert status(server, "/livez") == 200


def test_dripping_headers_do_not_extend_their_time(start: Start) -> None:
    server = start(HEADER_TIMEOUT="1")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        slow.sendall(b"GET /v2/ HTTP/1.1\r\n")
        began, closed = time.monotonic(), False
        while not closed and time.monotonic() - began < 8:
            try:
                slow.sendall(b"x: y\r\n")
                slow.settimeout(0.1)
                closed = slow.recv(100) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
        assert closed
        assert time.monotonic() - began < 4


def test_headers_that_are_too_large_are_refused(start: Start) -> None:
    server = start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as large:
        try:
            large.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n")
            for _ in range(100):
                large.sendall(b"x: " + b"y" * 4000 + b"\r\n")
            answer = large.recv(1000)
        except OSError:
            answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert status(server, "/livez") == 200


def certificate(server: RegistryServer) -> bytes:
    """What a new connection is shown, verified."""
    context = ssl.create_default_context(cafile=server.ca)
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def test_a_new_certificate_is_served_without_a_restart(start: Start) -> None:
    server = start(tls=True)
    assert server.request("GET", "/v2/").status == 200
    first, pid = certificate(server), server.pid
    assert server.certificates is not None
    names = ("--name", "127.0.0.1", "--name", "localhost", "--name", "registry.example")
    command("setup", "certs", *names, "--folder", str(server.certificates))
    until(lambda: certificate(server) != first, "the old certificate is still served")
    assert server.pid == pid
    assert server.request("GET", "/v2/").status == 200


def test_plain_http_to_a_tls_port_ends_without_a_traceback(start: Start) -> None:
    server = start(tls=True)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        plain.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
        with suppress(ConnectionResetError):
            plain.recv(100)
    assert status(server, "/livez") == 200
    assert "Traceback" not in server.read_log()


def test_every_request_is_one_json_line_without_secrets(start: Start) -> None:
    server = start(users=Credentials("ann", "correct-horse-battery"))
    server.request("GET", "/v2/", headers={"X-Request-Id": "from-proxy"})
    begun = server.request("POST", "/v2/team/app/blobs/uploads/")
    location = begun.headers["location"]
    token = location.partition("_state=")[2]
    assert token
    assert server.request("PATCH", location, body=DATA).status == 202
    assert server.request("GET", "/v2/team/app/manifests/a%0ab").status in (400, 404)
    assert server.stop() in (0, -signal.SIGTERM)
    requests = [line for line in logged(server) if line.get("event") == "request"]
    assert [line["status"] for line in requests][:3] == [200, 202, 202]
    for line in requests:
        fields = {"timestamp", "level", "method", "path", "status", "seconds", "received", "sent", "user", "peer", "id"}
        assert fields <= line.keys()
        assert line["user"] == "ann"
    assert requests[0]["id"] == "from-proxy"
    assert requests[1]["id"] == begun.headers["x-request-id"]
    assert requests[2]["received"] == len(DATA)
    text = server.read_log()
    for secret in ("correct-horse", "Basic ", token, "_state", "YW5uOmNvcnJlY3Q"):
        assert secret not in text


def get_on(connection: socket.socket) -> int:
    """The status of a GET on an open connection, its answer read to the end."""
    connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = http.client.HTTPResponse(connection, method="GET")
    answer.begin()
    answer.read()
    return answer.status


def test_one_connection_too_many_is_closed_and_the_others_go_on(start: Start) -> None:
    server = start(CONNECTIONS="3")
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10)) for _ in range(3)]
        for one in held:
            assert get_on(one) == 200
        with socket.create_connection(("127.0.0.1", server.port), 10) as extra, suppress(ConnectionError):
            extra.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
            assert extra.recv(1000) == b""
        assert get_on(held[0]) == 200


def test_one_request_too_many_is_told_to_come_back(start: Start) -> None:
    server = start(REQUESTS="1")
    with socket.create_connection(("127.0.0.1", server.port), 10) as slow:
        slow.sendall(b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        deadline = time.monotonic() + 10
        while (answer := server.request("GET", "/v2/")).status == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert answer.status == 503
        assert answer.headers["retry-after"]
        assert answer.json()["errors"][0]["code"] == "UNAVAILABLE"
        assert status(server, "/livez") == 200


def ports(count: int) -> list[int]:
    """Free ports, all different."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return sorted(found)


def asked(port: int, path: str, ca: Path | None = None, host: str = "127.0.0.1", push: bytes | None = None) -> int:
    """The status of a GET, or a POST of `push`; over TLS where `ca` is given; 0 where nobody answers."""
    context = ssl.create_default_context(cafile=ca) if ca else None
    connection = (
        http.client.HTTPSConnection(host, port, timeout=10, context=context)
        if context
        else http.client.HTTPConnection(host, port, timeout=10)
    )
    try:
        connection.request("GET" if push is None else "POST", path, push)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


class Listening:
    """A registry with listeners: its own port comes first, with TLS where `tls`; `others` follow as they are."""

    def __init__(
        self, folder: Path, *others: dict[str, object], tls: bool = False, port: int | None = None, **settings: str
    ) -> None:
        self.server = RegistryServer(folder, filesystem_store(folder / "data"), tls=tls, settings=settings, port=port)
        listeners = [{"port": self.server.port}, *others]
        self.server._environment |= {
            "EDGE_REGISTRY_LISTENERS": json.dumps(listeners),
            "EDGE_REGISTRY_AUTH__ANONYMOUS": "push",
            "EDGE_REGISTRY_LOG__FORMAT": "json",
        }
        del self.server._environment[f"{HTTP}PORT"]

    def __enter__(self) -> RegistryServer:
        return self.server.start()

    def __exit__(self, *_: object) -> None:
        self.server.kill()


def test_listeners_with_and_without_tls_serve_one_store_and_are_announced_together(tmp_path: Path) -> None:
    (plain,) = ports(1)
    with Listening(tmp_path, {"port": plain, "tls": False, "read_only": True}, tls=True) as server:
        assert server.request("POST", f"/v2/app/blobs/uploads/?digest={DIGEST}", body=DATA).status == 201
        assert asked(plain, f"/v2/app/blobs/{DIGEST}") == 200
        assert asked(server.port, f"/v2/app/blobs/{DIGEST}", server.ca) == 200
        assert asked(server.port, "/v2/") == 0
        assert asked(plain, "/v2/", server.ca) == 0
        assert server.read_log().count("Edge Registry listens on\n") == 1
        assert f"  https://127.0.0.1:{server.port}  read and write, no password\n" in server.read_log()
        assert f"  http://127.0.0.1:{plain}   read-only, no password\n" in server.read_log()
        assert server.stop() in (0, -signal.SIGTERM)
        assert "Traceback" not in server.read_log()


def test_all_listeners_drain_and_end_together(tmp_path: Path) -> None:
    (other,) = ports(1)
    drain = {f"{HTTP}DRAIN_DELAY": "1.5", f"{HTTP}DRAIN_TIMEOUT": "20"}
    with Listening(tmp_path, {"port": other}, **drain) as server:
        push = http.client.HTTPConnection("127.0.0.1", other, timeout=30)
        push.putrequest("POST", f"/v2/app/blobs/uploads/?digest={DIGEST}")
        push.putheader("Content-Length", str(len(DATA)))
        push.endheaders(DATA[:100])
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: asked(other, "/readyz") == 503 == asked(server.port, "/readyz"), "readiness never failed", 1.4)
        assert asked(other, "/v2/") == 200 == asked(server.port, "/v2/")
        until(lambda: asked(other, "/livez") == 0 == asked(server.port, "/livez"), "a listener still listens")
        push.send(DATA[100:])
        assert push.getresponse().status == 201
        push.close()
        assert server.stop() in (0, -signal.SIGTERM)
        assert "Traceback" not in server.read_log()


def test_the_limit_of_connections_counts_those_of_all_listeners(tmp_path: Path) -> None:
    (other,) = ports(1)
    with Listening(tmp_path, {"port": other}, **{f"{HTTP}CONNECTIONS": "2"}) as server, ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for port in (server.port, other)]
        for one in held:
            assert get_on(one) == 200
        assert asked(other, "/livez") == 0
        assert asked(server.port, "/livez") == 0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
def test_workers_share_all_listeners(tmp_path: Path) -> None:
    (other,) = ports(1)
    with Listening(tmp_path, {"port": other}, **{f"{HTTP}WORKERS": "2"}) as server:
        until(lambda: len(workers_of(server)) == 2, "two workers never ran")
        for port in (server.port, other):
            assert asked(port, "/v2/") == 200
        victim = min(workers_of(server))
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(workers_of(server) - {victim}) == 2, "the dead worker was not replaced")
        for port in (server.port, other):
            assert asked(port, "/v2/") == 200
        assert server.stop() == 0


def test_each_listener_keeps_its_own_rules_even_where_two_share_a_port(tmp_path: Path) -> None:
    (port,) = ports(1)
    with Listening(tmp_path, {"port": port, "host": "127.0.0.2", "read_only": True}, port=port) as server:
        upload = f"/v2/app/blobs/uploads/?digest={DIGEST}"
        assert asked(server.port, upload, host="127.0.0.2", push=DATA) == 405
        assert asked(server.port, upload, push=DATA) == 201
        assert asked(server.port, f"/v2/app/blobs/{DIGEST}", host="127.0.0.2") == 200
