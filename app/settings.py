"""Every setting there is, composed of the rooms' own models. Only the wiring (`main`, `cli`) reads this."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.auth.settings import AuthSettings
from app.proxy.settings import ProxySettings
from app.registry.settings import RegistrySettings
from app.transfer.settings import TransferSettings
from app.upkeep.settings import UpkeepSettings
from storage.settings import StorageSettings

Anonymity = Literal["none", "pull", "push"]
"""What callers without credentials may do."""


class TlsSettings(BaseModel):
    """The server's certificate; both files are re-read when they change."""

    model_config = ConfigDict(extra="forbid")

    certificate: Path | None = Field(None, description="PEM file: certificate, then its intermediates")
    key: Path | None = Field(None, description="PEM file: private key")

    @model_validator(mode="after")
    def _pair(self) -> "TlsSettings":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: set both or neither")
        return self


class HttpSettings(BaseModel):
    """Where and how the server listens."""

    model_config = ConfigDict(extra="forbid")

    host: str | None = Field(None, description="address to bind; unset: 0.0.0.0 with users, 127.0.0.1 without")
    port: int = Field(5045, ge=0, le=65535, description="port to bind")
    workers: int = Field(1, ge=1, le=64, description="processes that share the port")
    requests: int = Field(512, ge=1, description="most requests answered at once; others get 503 and Retry-After")
    connections: int = Field(4096, ge=1, description="most connections at once; others are closed")
    public_url: str | None = Field(None, description="URL under which clients reach the registry")
    tls: TlsSettings = TlsSettings()
    drain_delay: float = Field(
        0, ge=0, description="seconds between SIGTERM and the end of listening; /readyz fails at once"
    )
    drain_timeout: float = Field(30, ge=0, description="seconds that running requests get to end after that")
    header_timeout: float = Field(30, gt=0, description="seconds a client has to send a request's headers")
    stall_timeout: float = Field(60, gt=0, description="seconds in which a body must make `minimum_rate` on average")
    minimum_rate: int = Field(1024, ge=1, description="bytes a second below which a body is given up")


class ListenerSettings(BaseModel):
    """One of several addresses, as the operator wrote it; `Settings.listening` fills in what is unset."""

    model_config = ConfigDict(extra="forbid")

    port: int = Field(ge=1, le=65535, description="port to bind")
    host: str | None = Field(None, min_length=1, description="address to bind; unset: as http.host")
    tls: bool = Field(True, description="TLS with the certificate of http.tls, where there is one")
    read_only: bool = Field(False, description="refuse every push, delete and import that comes here")
    anonymous: Anonymity | None = Field(
        None,
        description="what callers without credentials may do; pull and push: nobody is asked for any here, and none "
        "are looked at; unset: as auth.anonymous",
    )
    default_upstream: str | None = Field(
        None, description='upstream for plain names that are not here; "" for none; unset: as proxy.default_upstream'
    )

    @field_validator("default_upstream")
    @classmethod
    def _lower(cls, name: str | None) -> str | None:
        return name.lower() if name is not None else None


@dataclass(frozen=True, slots=True)
class Listener:
    """One address at which the server listens, with everything that is particular about it.

    `tls` is whether it speaks TLS. Where `open_door`, credentials are neither asked for nor looked at: everybody
    may do what `anonymous` says. `default_upstream` is a name or an alias, or None.
    """

    key: str
    host: str
    port: int
    tls: bool
    read_only: bool
    anonymous: Anonymity | None
    open_door: bool
    default_upstream: str | None

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)


class LogSettings(BaseModel):
    """What is logged, and how."""

    model_config = ConfigDict(extra="forbid")

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe level that is logged")
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else JSON")


class Settings(BaseModel):
    """The whole configuration."""

    model_config = ConfigDict(extra="forbid")

    http: HttpSettings = HttpSettings()
    storage: StorageSettings = StorageSettings()
    registry: RegistrySettings = RegistrySettings()
    auth: AuthSettings = AuthSettings()
    log: LogSettings = LogSettings()
    proxy: ProxySettings = ProxySettings()
    upkeep: UpkeepSettings = UpkeepSettings()
    transfer: TransferSettings = TransferSettings()
    listeners: list[ListenerSettings] = Field(
        [], description="addresses to listen at, instead of http.host and http.port: a list of mappings"
    )

    def listening(self) -> list[Listener]:
        """Every address at which the server listens, of settings that `configuration.resolve` returned."""
        if self.listeners:
            return [self._listener(f"listeners.{place}", given) for place, given in enumerate(self.listeners)]
        return [self._listener("http", ListenerSettings.model_construct(port=self.http.port))]

    def _listener(self, key: str, given: ListenerSettings) -> Listener:
        upstream = self.proxy.default_upstream if given.default_upstream is None else given.default_upstream
        return Listener(
            key=key,
            host=given.host or self.http.host or "127.0.0.1",
            port=given.port,
            tls=given.tls and self.http.tls.certificate is not None,
            read_only=given.read_only or self.registry.read_only,
            anonymous=given.anonymous or self.auth.anonymous,
            open_door=given.anonymous in ("pull", "push"),
            default_upstream=upstream or None,
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; names other than localhost are not looked up and count as open."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
