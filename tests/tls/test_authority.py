"""The certificate authority: what it makes, keeps and refuses to touch."""

import shutil
import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from app.errors import StartError
from app.tls.authority import Certificates, make_certificates

NAMES = ["registry.lan", "*.edge.lan", "192.0.2.7", "2001:db8::7", "localhost"]


def leaf(certificates: Certificates) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificates.certificate.read_bytes())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_openssl_accepts_the_chain_for_each_name(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("openssl is not installed: nobody but Python checks the chain")
    made = make_certificates(tmp_path, NAMES)
    command = [openssl, "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(made.ca)]
    for name in ("registry.lan", "a.edge.lan", "localhost"):
        subprocess.run([*command, "-verify_hostname", name, str(made.certificate)], check=True)
    for address in ("192.0.2.7", "2001:db8::7"):
        subprocess.run([*command, "-verify_ip", address, str(made.certificate)], check=True)
    other = subprocess.run([*command, "-verify_hostname", "other.lan", str(made.certificate)], capture_output=True)
    assert other.returncode != 0


def test_python_accepts_the_chain_strictly(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, NAMES)
    client = ssl.create_default_context(cafile=str(made.ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    for name in ("registry.lan", "192.0.2.7", "2001:db8::7"):
        handshake(client, server, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client, server, "192.0.2.8")


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """A whole handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=name)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (near, far):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert near.version() == "TLSv1.3"


def test_the_certificate_says_what_go_and_openssl_want_to_read(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, NAMES)
    server, ca = leaf(made), x509.load_pem_x509_certificate(made.ca.read_bytes())
    server.verify_directly_issued_by(ca)
    get, of_ca = server.extensions.get_extension_for_class, ca.extensions.get_extension_for_class
    assert isinstance(server.public_key(), ec.EllipticCurvePublicKey)
    assert list(get(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert get(x509.KeyUsage).value.digital_signature
    assert not get(x509.BasicConstraints).value.ca
    assert get(x509.AuthorityKeyIdentifier).value.key_identifier == of_ca(x509.SubjectKeyIdentifier).value.digest
    assert of_ca(x509.KeyUsage).value.key_cert_sign
    assert of_ca(x509.BasicConstraints).critical
    assert server.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=50)
    assert len(x509.load_pem_x509_certificates(made.certificate.read_bytes())) == 2


def test_keys_are_private(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "new" / "folder", ["a"])
    assert {stat.S_IMODE(path.stat().st_mode) for path in (made.ca_key, made.key)} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (made.ca, made.certificate)} == {0o644}
    assert len(list(made.ca.parent.iterdir())) == 4


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    first = make_certificates(tmp_path, NAMES)
    before = contents(tmp_path)
    second = make_certificates(tmp_path, [*reversed(NAMES), "REGISTRY.lan"])
    assert (first.made_ca, first.made_certificate) == (True, True)
    assert (second.made_ca, second.made_certificate) == (False, False)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("change", ["names", "expiry", "key", "no key"])
def test_the_server_certificate_is_renewed_under_the_same_authority(tmp_path: Path, change: str) -> None:
    first = make_certificates(tmp_path, ["a"], days=20 if change == "expiry" else 825)
    before = contents(tmp_path)
    if change == "key":
        first.key.write_bytes(before["ca.key"])
    elif change == "no key":
        first.key.unlink()
    second = make_certificates(tmp_path, ["a", "b"] if change == "names" else ["a"])
    after = contents(tmp_path)
    assert (second.made_ca, second.made_certificate) == (False, True)
    assert (after["ca.crt"], after["ca.key"]) == (before["ca.crt"], before["ca.key"])
    assert after["server.crt"] != before["server.crt"]
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(second.certificate, second.key)


def test_an_authority_that_ends_soon_is_made_anew_with_its_server(tmp_path: Path) -> None:
    first = make_certificates(tmp_path, ["a"], ca_days=20)
    assert leaf(first).not_valid_after_utc <= datetime.now(UTC) + timedelta(days=20)
    second = make_certificates(tmp_path, ["a"])
    assert (second.made_ca, second.made_certificate) == (True, True)
    leaf(second).verify_directly_issued_by(x509.load_pem_x509_certificate(second.ca.read_bytes()))


def test_what_somebody_else_made_is_not_replaced(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    make_certificates(ours, ["a"])
    make_certificates(theirs, ["a"])
    shutil.copy(theirs / "server.crt", ours)
    _refused(ours, "was not signed")
    (ours / "ca.crt").unlink()
    _refused(ours, "only one is there")
    (ours / "ca.key").unlink()
    _refused(ours, "was not signed")
    shutil.copy(ours / "server.crt", theirs / "ca.crt")
    _refused(theirs, "no authority")
    (theirs / "ca.crt").write_text("nonsense")
    _refused(theirs, "no usable authority")


def _refused(folder: Path, says: str) -> None:
    before = contents(folder)
    with pytest.raises(StartError, match=says) as error:
        make_certificates(folder, ["b"])
    assert "\n" not in str(error.value)
    assert contents(folder) == before


@pytest.mark.parametrize(
    "names",
    [
        [],
        [""],
        ["https://a"],
        ["a:5045"],
        ["a b"],
        ["10.0.0"],
        ["a..b"],
        ["-a"],
        ["a.*"],
        ["x" * 64],
        ["\ud800"],
        ["a\n"],
        ["fe80::1%eth0"],
    ],
)
def test_what_is_no_name_makes_no_certificate(tmp_path: Path, names: list[str]) -> None:
    names = [name.replace("\n", "\nb") for name in names]
    with pytest.raises(StartError) as error:
        make_certificates(tmp_path / "new", names)
    assert not (tmp_path / "new").exists()
    assert "\n" not in str(error.value)


def test_a_name_of_another_script_is_written_as_clients_ask_for_it(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, ["bücher.example.", "[::1]"])
    names = leaf(made).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["xn--bcher-kva.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["::1"]


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot be kept"):
        make_certificates(tmp_path / "file" / "folder", ["a"])
