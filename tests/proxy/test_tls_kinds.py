"""The four kinds of TLS to an upstream, end to end against a real nginx, and what clients are told when one fails."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from app.errors import StartError
from app.tls.authority import Certificates, make_certificates
from tests.proxy.pulling import UP, pulling, section
from tests.services.app import Running
from tests.services.client import Image, digest_of
from tests.services.clients import find_program
from tests.services.nginx import Nginx, make_client_certificate
from tests.services.upstreams import Distribution

pytestmark = pytest.mark.clients

TAGGED = f"/v2/{UP}/team/app/manifests/1"


@pytest.fixture(scope="module")
def image(upstream: Distribution) -> Image:
    return upstream.pusher.image("team/app", "1", [200_000])


@pytest.fixture(scope="module")
def program(request: pytest.FixtureRequest) -> Path:
    found = find_program("nginx")
    if found is None:
        if request.config.getoption("--require-clients"):
            pytest.fail("nginx is not installed", pytrace=False)
        pytest.skip("nginx is not installed")
    return found


@pytest.fixture(scope="module")
def nginx(program: Path, upstream: Distribution, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(program, tmp_path_factory.mktemp("nginx"), upstream.url) as server:
        yield server


class Doubtful(Nginx):
    """An nginx whose certificate nobody should trust."""

    def __init__(self, program: Path, folder: Path, target: str, certificates: Certificates) -> None:
        super().__init__(program, folder, target)
        self._server = certificates

    def _answers(self, url: str) -> bool:
        try:
            socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=5).close()
        except OSError:
            return False
        return True


def make_expired(folder: Path) -> Certificates:
    """A certificate for 127.0.0.1 that was good until yesterday."""
    made = make_certificates(folder, ["127.0.0.1"])
    old = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    signer: Any = load_pem_private_key(made.ca_key.read_bytes(), None)
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=3)).not_valid_after(now - timedelta(days=1))
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    made.certificate.write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM))
    return made


def warnings(service: Running) -> list[str]:
    """What the log says about verification."""
    return [
        line["event"] for line in service.events() if line["level"] == "warning" and "not verified" in line["event"]
    ]


async def pull(service: Running, image: Image) -> None:
    """A manifest and a layer, as they are."""
    assert (await service.client.get(TAGGED)).expect(200).body == image.data
    layer = image.blobs[1]
    assert (await service.client.get(f"/v2/{UP}/team/app/blobs/{digest_of(layer)}")).expect(200).body == layer


async def refusal(service: Running) -> str:
    """The reason with which a pull is refused: 503, which clients may repeat later."""
    answer = (await service.client.get(TAGGED)).expect(503)
    assert int(answer.header("retry-after") or 0) >= 1
    reason = str(answer.json()["errors"][0]["message"])
    assert UP in reason
    return reason


@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("guarded", [False, True])
async def test_an_image_is_pulled_by_each_kind_of_tls(
    nginx: Nginx, image: Image, tmp_path: Path, *, verified: bool, guarded: bool
) -> None:
    tls: dict[str, Any] = {"ca": nginx.ca} if verified else {"verify": False}
    if guarded:
        tls |= {"certificate": nginx.client.certificate, "key": nginx.client.key}
    url = nginx.guarded_url if guarded else nginx.url
    async with pulling(tmp_path, section(url, tls=tls)) as service:
        await pull(service, image)
        await pull(service, image)
        said = warnings(service)
        assert len(said) == (0 if verified else 1)
        assert all(UP in line for line in said)


async def test_an_unknown_authority_is_refused_with_the_reason(nginx: Nginx, image: Image, tmp_path: Path) -> None:
    other = make_certificates(tmp_path / "other", ["127.0.0.1"])
    for number, tls in enumerate(({}, {"ca": other.ca})):
        async with pulling(tmp_path / str(number), section(nginx.url, tls=tls)) as service:
            assert "signed by an authority that is not trusted" in await refusal(service)


async def test_the_reason_is_still_said_once_the_breaker_is_open(nginx: Nginx, image: Image, tmp_path: Path) -> None:
    async with pulling(tmp_path, section(nginx.url)) as service:
        reasons = [await refusal(service) for _ in range(4)]
        assert "has been unreachable for" in reasons[-1]
        assert all("signed by an authority that is not trusted" in reason for reason in reasons)


@pytest.mark.parametrize("kind", ["expired", "another host"])
async def test_a_wrong_certificate_is_refused_with_the_reason_unless_verification_is_off(
    kind: str, program: Path, upstream: Distribution, image: Image, tmp_path: Path
) -> None:
    if kind == "expired":
        made, reason = make_expired(tmp_path / "server"), "its certificate has expired"
    else:
        made, reason = make_certificates(tmp_path / "server", ["other.example"]), "its certificate is for another"
    with Doubtful(program, tmp_path / "nginx", upstream.url, made) as server:
        async with pulling(tmp_path / "1", section(server.url, tls={"ca": made.ca})) as service:
            assert reason in await refusal(service)
        async with pulling(tmp_path / "2", section(server.url, tls={"verify": False})) as service:
            await pull(service, image)


@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("shown", ["none", "of another authority"])
async def test_an_upstream_that_wants_another_client_certificate_says_so(
    shown: str, nginx: Nginx, image: Image, tmp_path: Path, *, verified: bool
) -> None:
    tls: dict[str, Any] = {"ca": nginx.ca} if verified else {"verify": False}
    if shown != "none":
        stranger = make_client_certificate(tmp_path / "stranger")
        tls |= {"certificate": stranger.certificate, "key": stranger.key}
    async with pulling(tmp_path, section(nginx.guarded_url, tls=tls)) as service:
        assert "it wants a client certificate" in await refusal(service)
        assert "BEGIN" not in service.log.getvalue()


async def test_a_missing_file_stops_the_start_and_names_the_setting(nginx: Nginx, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=rf"tls\.ca of the upstream {UP}"):
        async with pulling(tmp_path, section(nginx.url, tls={"ca": tmp_path / "nothing.pem"})):
            pass
