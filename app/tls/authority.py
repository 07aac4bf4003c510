"""The authority: a certificate authority of one's own and the server certificate it signs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.errors import StartError
from app.files import replace
from app.tls.names import subject_names

_SPARE: Final = timedelta(days=30)
"""What is not valid for this much longer is made anew."""

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where the files are, and which of them were made just now; a new authority must be trusted anew by clients."""

    ca: Path
    ca_key: Path
    certificate: Path
    key: Path
    made_ca: bool
    made_certificate: bool


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: x509.Certificate
    key: _Key


def make_certificates(folder: Path, names: Sequence[str], *, days: int = 825, ca_days: int = 3650) -> Certificates:
    """`ca.crt`, `ca.key`, `server.crt` (with the authority behind it) and `server.key` in `folder`, blocking.

    `names` are DNS names and addresses; `days` and `ca_days` are how long the new ones are valid. An authority that is
    there is used again while it is valid for 30 days more; so is the server certificate when it holds the same names.
    Keys have mode 0600. Raises StartError for bad names, for files that cannot be read or written, and rather than
    replace an authority or a certificate that this function did not make.
    """
    wanted = subject_names(names)
    if days < 1 or ca_days < 1:
        raise StartError("a certificate is valid for at least one day")
    ca, ca_key, certificate, key = (folder / name for name in ("ca.crt", "ca.key", "server.crt", "server.key"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        authority = _existing_authority(ca, ca_key)
        keep = _existing_server_fits(certificate, key, authority, wanted)
        made_ca = authority is None or not _spare(authority.certificate)
        if authority is None or made_ca:
            authority = _new_authority(ca_days)
            _write(ca, ca_key, authority, [authority.certificate])
        if made_ca or not keep:
            server = _new_server(authority, wanted, days)
            _write(certificate, key, server, [server.certificate, authority.certificate])
    except OSError as exc:
        raise StartError(f"certificates cannot be kept in {folder}: {exc.strerror or exc}") from exc
    return Certificates(ca, ca_key, certificate, key, made_ca=made_ca, made_certificate=made_ca or not keep)


def _existing_authority(certificate: Path, key: Path) -> _Pair | None:
    """The authority in these files, or None where there is none. Raises StartError where it cannot be used."""
    if not certificate.exists() and not key.exists():
        return None
    hint = "move what is there away to make both anew"
    if not certificate.exists() or not key.exists():
        raise StartError(f"of {certificate} and {key} only one is there; bring the other back, or {hint}")
    try:
        pair = _Pair(x509.load_pem_x509_certificate(certificate.read_bytes()), _load_key(key))
        is_ca = pair.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound) as exc:
        raise StartError(f"{certificate} and {key} are no usable authority: {exc}; {hint}") from None
    if not is_ca or pair.certificate.public_key() != pair.key.public_key():
        raise StartError(f"{certificate} is no authority with the key {key}; {hint}")
    return pair


def _existing_server_fits(certificate: Path, key: Path, authority: _Pair | None, names: list[x509.GeneralName]) -> bool:
    """Whether the server certificate can stay. Raises StartError when somebody else's stands there."""
    if not certificate.exists():
        return False
    foreign = StartError(f"{certificate} was not signed by an authority beside it; move it away to make a new one")
    if authority is None:
        raise foreign
    try:
        leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
        leaf.verify_directly_issued_by(authority.certificate)
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        raise foreign from None
    try:
        fits = _load_key(key).public_key() == leaf.public_key()
    except (ValueError, FileNotFoundError):
        return False
    return fits and set(found) == set(names) and _spare(leaf)


def _spare(certificate: x509.Certificate) -> bool:
    now = datetime.now(UTC)
    return certificate.not_valid_before_utc <= now and certificate.not_valid_after_utc - now > _SPARE


def _load_key(path: Path) -> _Key:
    """Raises ValueError for what is no key, is encrypted, or is of a kind that few clients take."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except TypeError:
        raise ValueError(f"{path} is encrypted") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError(f"{path} is neither an EC nor an RSA key")
    return key


def _new_authority(days: int) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # Two authorities of one name would shadow each other in a trust store.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Edge Registry CA {serial % 0xFFFFFFFF:08x}")])
    now = datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(name, name, key, serial)
        .not_valid_before(now - timedelta(hours=1))  # clocks at the edge are late
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return _Pair(builder.sign(key, hashes.SHA256()), key)


def _new_server(authority: _Pair, names: list[x509.GeneralName], days: int) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    common = x509.NameAttribute(NameOID.COMMON_NAME, str(names[0].value)[:64])
    issuer = authority.certificate
    builder = (
        _builder(x509.Name([common]), issuer.subject, key, x509.random_serial_number())
        .not_valid_before(max(now - timedelta(hours=1), issuer.not_valid_before_utc))
        .not_valid_after(min(now + timedelta(days=days), issuer.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_issuer_identifier(issuer), critical=False)
    )
    return _Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _issuer_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The issuer's own identifier where it states one, else the usual hash of its key."""
    try:
        stated = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key = issuer.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise StartError("the authority's key is neither an EC nor an RSA key") from None
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(stated)


def _builder(subject: x509.Name, issuer: x509.Name, key: _Key, serial: int) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    return builder.public_key(key.public_key()).serial_number(serial)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write(certificate: Path, key: Path, pair: _Pair, chain: Sequence[x509.Certificate]) -> None:
    pem = serialization.Encoding.PEM
    secret = pair.key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    replace(key, secret, 0o600)
    replace(certificate, b"".join(part.public_bytes(pem) for part in chain), 0o644)
