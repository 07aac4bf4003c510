"""Token services that may see an upstream's credentials."""

from collections.abc import Collection
from typing import Final

from yarl import URL

from app.proxy.addresses import is_host
from app.proxy.errors import Portal

_KNOWN: Final = {
    "registry-1.docker.io": frozenset({"auth.docker.io"}),
    "registry.gitlab.com": frozenset({"gitlab.com"}),
    "docker.elastic.co": frozenset({"docker-auth.elastic.co"}),
    "registry.digitalocean.com": frozenset({"api.digitalocean.com"}),
}
"""Public registries whose token service has another host name."""


def trusted_realm(realm: str, origin: URL, listed: Collection[str], name: str) -> URL:
    """The realm of a Bearer challenge of `origin` as a URL, if it may be asked.

    That is: https, unless `origin` itself is http, and on its host (with any port), on one that is known to belong to
    it, or on one of `listed`, the setting `token_hosts`. Raises Portal, naming the upstream `name`.
    """
    try:
        url = URL(realm)
        host, port = (url.raw_host or "").lower() if url.host else "", url.port  # `host` raises for what is no IDNA
    except ValueError:
        raise Portal(f"{name} names a token service that is no URL") from None
    if url.scheme not in ("http", "https") or not is_host(host) or url.user is not None or url.password is not None:
        raise Portal(f"{name} names a token service that is no URL")
    if url.scheme == "http" and origin.scheme != "http":
        raise Portal(f"{name} names a token service without TLS, which is refused")
    if not (
        host == origin.raw_host or host in _KNOWN.get(origin.host or "", ()) or {host, f"{host}:{port}"} & set(listed)
    ):
        raise Portal(f"{name} sends its logins to {host[:100]}; if that is right, add it to token_hosts")
    return url.with_fragment(None)
