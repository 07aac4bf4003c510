"""Every setting there is, composed of the rooms' own models. Only the wiring (`main`, `cli`) reads this."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.auth.settings import AuthSettings
from app.registry.settings import RegistrySettings
from storage.settings import StorageSettings


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
