"""What an operator may set about upstream registries; each field is a key below `proxy:`."""

import re
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from app.quantities import Duration, Size

FailureKind = Literal["network", "server_error", "rate_limited", "captive_portal", "denied", "missing"]
"""Why an upstream did not give what it was asked for."""

HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
"""Names of Docker Hub."""
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?")
_PLATFORM: Final = re.compile(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9]+)?")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UpstreamTlsSettings(_Model):
    """How the upstream proves who it is, and how we do."""

    ca: Path | None = Field(None, description="PEM file of authorities to trust, besides the system's")
    certificate: Path | None = Field(None, description="PEM file: our client certificate")
    key: Path | None = Field(None, description="PEM file: the key of our client certificate")
    verify: bool = Field(True, description="verify the upstream's certificate; switching it off is logged")

    @model_validator(mode="after")
    def _pair(self) -> "UpstreamTlsSettings":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: set both or neither")
        return self


class GoogleSettings(_Model):
    """Tokens for Artifact Registry. Without a file: GOOGLE_APPLICATION_CREDENTIALS, else the metadata server."""

    file: Path | None = Field(None, description="credentials: external_account (Workload Identity) or service account")


class CredentialsSettings(_Model):
    """One way of logging in to an upstream; without any, anonymously."""

    username: str | None = Field(None, description="user name")
    password: SecretStr | None = Field(None, description="password or access token")
    password_file: Path | None = Field(None, description="file that holds the password, read again when it changes")
    config: Path | None = Field(
        None, description="docker/config.json or podman's auth.json, read again when it changes"
    )
    helper: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._-]+$", description="credential helper: `X` runs docker-credential-X"
    )
    helper_lifetime: Duration = Field(600, gt=0, description="seconds for which a helper's answer is used")
    google: GoogleSettings | None = Field(None, description="Google: Workload Identity, key file or metadata server")

    @model_validator(mode="after")
    def _one_way(self) -> "CredentialsSettings":
        secret = self.password is not None or self.password_file is not None
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are two ways to say one thing")
        if (self.username is not None) != secret:
            raise ValueError("username and a password go together")
        ways = [self.username, self.config, self.helper, self.google]
        if sum(way is not None for way in ways) != 1:
            raise ValueError("set one of username with password, config, helper, google")
        return self


class StaleSettings(_Model):
    """When a tag that cannot be checked is answered from the cache, with a warning."""

    on: list[FailureKind] = Field(
        ["network", "server_error", "rate_limited", "captive_portal", "missing"],
        description="failures in which the last known manifest of a tag is served",
    )
    max_age: Duration | None = Field(None, description="seconds after the last check; unset: for ever")
    missing_for: Duration = Field(3600, ge=0, description="seconds for which a tag deleted upstream is still served")


class PrefetchSettings(_Model):
    """What is fetched in the background once a manifest was pulled."""

    enabled: bool = Field(True, description="fetch the rest of an image once its manifest is pulled")
    platforms: list[str] = Field(
        [], description="platforms, such as linux/arm64, to fetch of each index that is pulled, besides what is asked"
    )

    @field_validator("platforms")
    @classmethod
    def _platforms(cls, platforms: list[str]) -> list[str]:
        for platform in platforms:
            if not _PLATFORM.fullmatch(platform):
                raise ValueError(f"{platform[:40]!r} is no platform such as linux/arm64")
        return platforms


class UpstreamSettings(_Model):
    """One upstream registry."""

    name: str = Field(description="the name by which clients know it, e.g. docker.io")
    aliases: list[str] = Field([], description="other names for it")
    url: str = Field(description="where it is: scheme, host, and a path that is put before repository names")
    credentials: CredentialsSettings | None = Field(None, description="how to log in")
    tls: UpstreamTlsSettings = Field(UpstreamTlsSettings(), description="ca, certificate, key, verify")
    tag_ttl: Duration = Field(300, ge=0, description="seconds for which a checked tag is not asked for again")
    immutable_tags: list[str] = Field(
        [], description="patterns `repository:tag` of tags that are never asked for again"
    )
    stale: StaleSettings = Field(StaleSettings(), description="when a tag is served unchecked")
    prefetch: PrefetchSettings = Field(PrefetchSettings(), description="what is fetched in the background")
    fallbacks: list[str] = Field([], description="upstreams to ask, in this order, where this one fails or has it not")
    token_hosts: list[str] = Field([], description="further hosts whose token service may see the credentials")
    allow_private: bool = Field(False, description="allow redirects and token services at private addresses")
    connections: int = Field(6, ge=1, le=256, description="most transfers at once")
    bandwidth: Size | None = Field(None, ge=1024, description="most bytes a second")
    rate_reserve: int = Field(10, ge=0, description="pulls of a rate limit that are kept for people: no prefetch below")
    max_bytes: Size | None = Field(None, ge=1 << 20, description="size of the cache, above which the least used goes")
    connect_timeout: Duration = Field(3, gt=0, description="seconds to reach it")
    stall_timeout: Duration = Field(15, gt=0, description="seconds without a byte after which a transfer is begun anew")

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if not _HOST.fullmatch(name.lower()):
            raise ValueError("must be a host name, with a port where it has one")
        return name.lower()

    @field_validator("aliases", "token_hosts", "fallbacks")
    @classmethod
    def _hosts(cls, names: list[str]) -> list[str]:
        return [cls._name(name) for name in names]

    @field_validator("url")
    @classmethod
    def _url(cls, text: str) -> str:
        url = urlsplit(text)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("must be a URL with http or https")
        if url.username or url.password or url.query or url.fragment:
            raise ValueError("must hold no user, password, query or fragment: credentials have a place of their own")
        return text.rstrip("/")


def names_of(upstream: UpstreamSettings) -> set[str]:
    """Everything that clients may call it, in lower case; Docker Hub has three names whichever is configured."""
    own = {upstream.name, *upstream.aliases}
    return own | HUB if own & HUB else own


class SpoolSettings(_Model):
    """The disk space through which transfers go."""

    folder: Path = Field(Path("registry-spool"), description="folder for transfers on their way; outlives a restart")
    max_bytes: Size = Field(20 << 30, ge=1 << 20, description="most bytes in it")


class ProxySettings(_Model):
    """Upstream registries, and what is kept of them."""

    default_upstream: str | None = Field(None, description="upstream for plain names that are not here")
    upstreams: list[UpstreamSettings] = Field([], description="upstream registries: a list of mappings")
    air_gapped: bool = Field(
        False, description="never dial anybody: what is here of upstreams is served, and is all there is"
    )
    spool: SpoolSettings = SpoolSettings()
    peer_url: str | None = Field(
        None, description="URL under which other replicas reach this one; unset: found from the address and port"
    )
    negative_ttl: Duration = Field(60, ge=0, description="seconds for which a definite 404 of an upstream is believed")
    pin_interval: Duration = Field(3600, gt=0, description="seconds between two rounds that keep pins fresh")
    eviction_interval: Duration = Field(300, gt=0, description="seconds between two looks at the size of caches")

    @field_validator("default_upstream")
    @classmethod
    def _lower(cls, name: str | None) -> str | None:
        return name.lower() if name else None

    @model_validator(mode="after")
    def _names(self) -> "ProxySettings":
        known: set[str] = set()
        for upstream in self.upstreams:
            for name in names_of(upstream):
                if name in known:
                    raise ValueError(f"two upstreams are called {name}")
                known.add(name)
        wanted = [name for upstream in self.upstreams for name in upstream.fallbacks]
        for name in [*wanted, *([self.default_upstream] if self.default_upstream else [])]:
            if name not in known:
                raise ValueError(f"there is no upstream called {name}")
        return self
