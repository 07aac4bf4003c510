"""Authorities: ours, and what the clients on this host were given instead of it."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from app.nodes.files import Foreign
from app.nodes.root import Root


def fingerprints(pem: str | bytes) -> set[bytes]:
    """What tells the certificates in a PEM text apart; empty where there are none."""
    data = pem.encode() if isinstance(pem, str) else pem
    try:
        return {one.fingerprint(hashes.SHA256()) for one in x509.load_pem_x509_certificates(data)}
    except ValueError:
        return set()


def trouble_with(root: Root, paths: list[str], ours: str) -> str | None:
    """What is wrong with the authorities in these files of a client; None where ours is among them."""
    if not paths:
        return "it has no authority for it"
    found: set[bytes] = set()
    for path in paths:
        try:
            data = root.read(path)
        except (OSError, Foreign) as exc:
            return f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}"
        if data is None:
            return f"{path} is not there"
        found |= fingerprints(data)
    if fingerprints(ours) & found:
        return None
    return f"{paths[0]} holds another authority than ours, or none"


def crt_files(root: Root, folder: str) -> list[str]:
    """The `*.crt` in a folder of a client, which are authorities. Raises OSError, Foreign."""
    real = root.real(folder)
    names = sorted(one.name for one in real.iterdir()) if real.is_dir() else []
    return [f"{folder}/{name}" for name in names if name.endswith(".crt")]
