"""The Basic challenge: what a 401 tells a client to send next time."""

from app.oci.errors import Unauthorized


def unauthorized(realm: str, message: str | None = None) -> Unauthorized:
    """A 401 error, to be raised by the caller, that carries `WWW-Authenticate: Basic realm="<realm>"`."""
    return Unauthorized(message, headers={"WWW-Authenticate": f'Basic realm="{realm}"'})
