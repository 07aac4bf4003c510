"""A real nginx before a registry: TLS by an authority of its own, with and without demanded client certificates."""

import os
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.tls.authority import make_certificates
from tests.services.minio import free_port
from tests.services.process import await_answer, end

START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 10.0

_CONFIGURATION: Final = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  ssl_certificate {certificate};
  ssl_certificate_key {key};
  ssl_session_cache off;
  ssl_session_tickets off;
{servers}
}}
"""
_SERVER: Final = """
  server {{
    listen 127.0.0.1:{port} ssl;
    {demand}
    location / {{
      proxy_pass {target};
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto https;
      add_header X-Client-Verify $ssl_client_verify always;
      add_header X-Client-Subject $ssl_client_s_dn always;
    }}
  }}
"""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """PEM files: a client's certificate, its key, and the authority that signed it."""

    certificate: Path
    key: Path
    ca: Path


def make_client_certificate(folder: Path, name: str = "edge") -> ClientCertificate:
    """A client certificate of a new authority in `folder`."""
    authority = make_certificates(folder, ["clients.invalid"])
    issuer = x509.load_pem_x509_certificate(authority.ca.read_bytes())
    signer = serialization.load_pem_private_key(authority.ca_key.read_bytes(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    made = ClientCertificate(folder / "client.crt", folder / "client.key", authority.ca)
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    made.key.chmod(0o600)
    return made


class Nginx:
    """TLS before the registry at `target` (http), with a server certificate for `names` by the authority `ca`.

    `url` takes every client; `guarded_url` only those with a certificate by the authority of `client`, and answers
    others with 400 and a page of HTML. Answers carry X-Client-Verify and X-Client-Subject. With the two ways in which
    a client may look at the server's certificate, that makes the four kinds of TLS.
    """

    def __init__(
        self, program: Path, folder: Path, target: str, *, names: tuple[str, ...] = ("127.0.0.1", "localhost")
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.target = folder, target
        self.client = make_client_certificate(folder / "clients")
        self._program = program
        self._server = make_certificates(folder / "server", names)
        self._ports = (free_port(), free_port())
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def ca(self) -> Path:
        """The authority of the server's certificate."""
        return self._server.ca

    @property
    def url(self) -> str:
        """Where no client certificate is asked for."""
        return f"https://127.0.0.1:{self._ports[0]}"

    @property
    def guarded_url(self) -> str:
        """Where a client certificate is demanded."""
        return f"https://127.0.0.1:{self._ports[1]}"

    def start(self) -> "Nginx":
        """Starts the process and returns when both ports answer; fails with its log where they do not."""
        configuration = self.folder / "nginx.conf"
        configuration.write_text(self._configuration())
        with (self.folder / "nginx.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._program),
                    "-p",
                    str(self.folder),
                    "-e",
                    str(self.folder / "error.log"),
                    "-c",
                    str(configuration),
                ],
                env={"PATH": os.environ.get("PATH", "")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        urls = (self.url, self.guarded_url)
        if await_answer(self._process, lambda: all(self._answers(url) for url in urls), START_SECONDS):
            return self
        self.stop()
        written = [(self.folder / name).read_text(errors="replace") for name in ("nginx.log", "error.log")]
        raise AssertionError("nginx did not start:\n" + "\n".join(written))

    def stop(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        end(process, STOP_SECONDS)

    def _configuration(self) -> str:
        demands = ("", f"ssl_verify_client on; ssl_client_certificate {self.client.ca};")
        servers = [
            _SERVER.format(port=port, demand=demand, target=self.target)
            for port, demand in zip(self._ports, demands, strict=True)
        ]
        certificate, key = self._server.certificate, self._server.key
        return _CONFIGURATION.format(folder=self.folder, certificate=certificate, key=key, servers="".join(servers))

    def _answers(self, url: str) -> bool:
        context = ssl.create_default_context(cafile=self.ca)
        try:
            with urllib.request.urlopen(url + "/v2/", timeout=5, context=context):
                return True
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return True
        except OSError:
            return False

    def __enter__(self) -> "Nginx":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
