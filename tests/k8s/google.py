"""A stand-in for Google: its token services and an Artifact Registry, which take what a cluster's own key has signed."""

import base64
import contextlib
import json
import secrets
import ssl
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from app.tls.authority import make_certificates

PROJECT: Final = "/my-project/my-repository"
STEP: Final = 256 << 10


class Google:
    """Serves HTTPS at `address` while entered; what is below `/v2/my-project/my-repository/` comes from `registry`.

    `keys` is the cluster's JSON Web Key Set. A token is exchanged when one of them signed it, for `audience` and for
    `subject`; the registry answers nobody but who shows what the exchange gave. `complaints` says what was refused.
    """

    def __init__(self, folder: Path, address: str, registry: str, keys: str, *, audience: str, subject: str) -> None:
        self.certificates = make_certificates(folder, [address])
        self.complaints: list[str] = []
        self.exchanges = 0
        self._address, self._registry = address, registry
        self._keys = {key["kid"]: _public_key(key) for key in json.loads(keys)["keys"]}
        self._audience, self._subject = audience, subject
        self._federated: set[str] = set()
        self._issued: set[str] = set()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        assert self._server is not None
        return f"https://{self._address}:{self._server.server_port}"

    def pushed(self, name: str) -> str:
        """Where the image `name` of the repository is pushed to, for skopeo."""
        return f"{self._registry.removeprefix('http://')}/{name}"

    def __enter__(self) -> "Google":
        google = self

        class Handler(_Handler):
            services = google

        self._server = ThreadingHTTPServer((self._address, 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificates.certificate, self.certificates.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def exchange(self, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """STS: a token of the cluster for a federated one."""
        try:
            claims = self._claims(form["subject_token"][0])
            wrong = [name for name, wanted in (("sub", self._subject),) if claims[name] != wanted]
            if wrong or f"https:{self._audience}" not in claims["aud"] or form["audience"] != [self._audience]:
                raise ValueError(f"claims {claims}")
            if claims["exp"] <= time.time():
                raise ValueError("the token has ended")
        except (KeyError, ValueError, InvalidSignature) as exc:
            self.complaints.append(f"{type(exc).__name__}: {exc}")
            return 400, {"error": "invalid_grant", "error_description": "no such token"}
        token = _new(self._federated)
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600, "issued_token_type": "x"}

    def impersonate(self, authorization: str) -> tuple[int, dict[str, Any]]:
        """IAM: a federated token for that of the service account."""
        if authorization.removeprefix("Bearer ") not in self._federated:
            self.complaints.append("no federated token")
            return 401, {"error": {"code": 401, "status": "UNAUTHENTICATED"}}
        self.exchanges += 1
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return 200, {"accessToken": _new(self._issued), "expireTime": end}

    def may_pull(self, authorization: str) -> bool:
        """Whether this is the login that Artifact Registry wants."""
        with contextlib.suppress(ValueError):
            name, _, token = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
            return name == "oauth2accesstoken" and token in self._issued
        return False

    def content(self, path: str, headers: dict[str, str], method: str) -> Any:
        """The answer of the registry behind."""
        request = urllib.request.Request(self._registry + path.replace(PROJECT, "", 1), headers=headers, method=method)
        try:
            return urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as refusal:
            return refusal

    def _claims(self, token: str) -> dict[str, Any]:
        """What the token says. Raises KeyError, ValueError or InvalidSignature where none of the keys signed it."""
        head, body, signature = token.split(".")
        key = self._keys[json.loads(_decoded(head))["kid"]]
        key.verify(_decoded(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
        claims: dict[str, Any] = json.loads(_decoded(body))
        return claims


class _Handler(BaseHTTPRequestHandler):
    services: Google
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/token":
            status, answer = self.services.exchange(parse_qs(body.decode()))
        elif self.path.endswith(":generateAccessToken"):
            status, answer = self.services.impersonate(self.headers.get("Authorization", ""))
        else:
            status, answer = 404, {}
        self._say(status, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if not self.services.may_pull(self.headers.get("Authorization", "")):
            self._say(401, {"WWW-Authenticate": 'Basic realm="Artifact Registry"'}, b"{}")
            return
        if not self.path.startswith(f"/v2{PROJECT}/") and self.path != "/v2/":
            self._say(404, {}, b"{}")
            return
        kept = {name: value for name, value in self.headers.items() if name in ("Accept", "Range")}
        with self.services.content(self.path, kept, self.command) as answer:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("date", "server", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            while self.command == "GET" and (data := answer.read(STEP)):
                self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass

    def _say(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _new(tokens: set[str]) -> str:
    token = f"ya29.{secrets.token_urlsafe(24)}"
    tokens.add(token)
    return token


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _public_key(key: dict[str, str]) -> rsa.RSAPublicKey:
    exponent, modulus = (int.from_bytes(_decoded(key[name])) for name in ("e", "n"))
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()
