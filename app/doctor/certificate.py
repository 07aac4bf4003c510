"""The server's certificate: its chain, its key, the names it is for, and how long it is good."""

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from app.doctor.names import Host, covers, listed
from app.doctor.report import Check, failed, ok, warning

_SOON: Final = timedelta(days=30)


def examine_certificate(certificate: Path, key: Path, hosts: Sequence[Host]) -> list[Check]:
    """Looks at both files, blocking. `hosts` are the names that clients use."""
    make = _renewal(certificate, key, [host.name for host in hosts])
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    except OSError as exc:
        return [failed("file", f"{certificate} cannot be read: {exc.strerror or exc}", _readable(certificate))]
    except ValueError:
        return [failed("file", f"{certificate} is no certificate in PEM form", make)]
    names = certificate_names(chain[0])
    make = _renewal(certificate, key, [*names, *(host.name for host in hosts)])
    return [
        _chain(certificate, chain),
        _key(certificate, chain[0], key, make),
        _names(names, hosts, make),
        *_expiry(chain, make),
    ]


def _chain(path: Path, chain: Sequence[x509.Certificate]) -> Check:
    for place, (one, issuer) in enumerate(itertools.pairwise(chain), 1):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            found = f"certificate {place} of {path} was not signed by the one behind it"
            return failed("chain", found, f"put the server's certificate first into {path}, then each one's signer")
    last = chain[-1]
    if last.issuer == last.subject:
        what = "signed by itself" if len(chain) == 1 else f"{len(chain)} certificates up to their own authority"
        return ok("chain", f"{what}: clients must be given it (`edge-registry node-config`)")
    if len(chain) == 1:
        return warning(
            "chain",
            f"{path} holds no intermediate of {_said(last.issuer)}: clients that do not know it refuse the certificate",
            f"append the certificate of {_said(last.issuer)} to {path}, unless it is an authority that clients have",
        )
    return ok("chain", f"{len(chain)} certificates, each signed by the next; the last by {_said(last.issuer)}")


def _key(path: Path, leaf: x509.Certificate, key: Path, make: str) -> Check:
    try:
        fits = serialization.load_pem_private_key(key.read_bytes(), None).public_key() == leaf.public_key()
    except OSError as exc:
        return failed("key", f"{key} cannot be read: {exc.strerror or exc}", _readable(key))
    except TypeError:
        return failed("key", f"{key} is encrypted", f"openssl pkey -in {key} -out {key}.plain, and set http.tls.key")
    except (ValueError, UnsupportedAlgorithm):
        return failed("key", f"{key} is no private key in PEM form", make)
    if not fits:
        return failed("key", f"{key} is not the key of {path}", make)
    return ok("key", f"{key} fits")


def _names(names: Sequence[str], hosts: Sequence[Host], make: str) -> Check:
    wanted = list(dict.fromkeys(host.name for host in hosts))
    missing = [name for name in wanted if not covers(names, name)]
    if missing:
        return failed("names", f"it is not for {listed(missing)}, but for {listed(names) or 'no name at all'}", make)
    if not wanted:
        return ok("names", f"it is for {listed(names)}; name others with --host to have them checked")
    return ok("names", f"it is for {listed(wanted)}")


def _expiry(chain: Sequence[x509.Certificate], make: str) -> Iterator[Check]:
    now = datetime.now(UTC)
    for place, one in enumerate(chain):
        what = "it" if place == 0 else f"its signer {_said(one.subject)}"
        name = "expiry" if place == 0 else "signer's expiry"
        start, end = one.not_valid_before_utc, one.not_valid_after_utc
        if end <= now:
            yield failed(name, f"{what} ended on {end:%Y-%m-%d %H:%M} UTC", make)
        elif start > now:
            yield failed(name, f"{what} is valid from {start:%Y-%m-%d %H:%M} UTC on only", "timedatectl set-ntp true")
        elif end - now < _SOON:
            yield warning(name, f"{what} ends on {end:%Y-%m-%d}, in {(end - now).days} days", make)
        elif place == 0:
            yield ok(name, f"it is good until {end:%Y-%m-%d}")


def certificate_names(leaf: x509.Certificate) -> list[str]:
    """The DNS names and addresses that a certificate is for."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [str(one.value) for one in found if isinstance(one, x509.DNSName | x509.IPAddress)]


def _renewal(certificate: Path, key: Path, names: Sequence[str]) -> str:
    """How to get a certificate for these names, the same way as this one came about as far as can be seen."""
    wanted = list(dict.fromkeys(names))
    if certificate.name == "server.crt" and key.name == "server.key":
        options = " ".join(f"--name {name}" for name in wanted or ["HOST"])
        return f"edge-registry setup certs --folder {certificate.parent} {options}"
    return f"put a pair for {listed(wanted) or 'this host'} in place of {certificate} and {key}; the server takes it up"


def _readable(path: Path) -> str:
    return f"give the user that runs the registry read access: chown it, or chgrp and chmod 640, {path}"


def _said(name: x509.Name) -> str:
    return name.rfc4514_string()[:100]
