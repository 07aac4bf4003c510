"""What `node-setup` is told, as a YAML document: the site, and how its names find their addresses."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app import documents
from app.errors import StartError
from app.nodes import site as words
from app.nodes.site import Site
from app.quantities import Duration

Client = Literal["containerd", "k3s", "docker", "podman", "crio"]
"""The clients whose files `node-setup` writes."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AddressSettings(_Model):
    """Where a name's address comes from: one of them."""

    address: str | None = Field(None, description="an IP address")
    service: str | None = Field(None, description="a DNS name, such as that of a Service, looked up again and again")
    variable: str | None = Field(None, description="an environment variable that holds the address")
    file: Path | None = Field(None, description="a file that holds the address, read again and again")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"address": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one_way(self) -> "AddressSettings":
        if sum(way is not None for way in (self.address, self.service, self.variable, self.file)) != 1:
            raise ValueError("set one of address, service, variable, file")
        return self


class MirrorSettings(_Model):
    """The upstream registries that this one stands in for on the nodes."""

    registries: list[str] = Field(min_length=1, description='their names, or "*" for all')
    url: str | None = Field(None, description="where the mirror is; unset: the first of `hosts`")
    upstreams: list[str] = Field([], description='names in place of "*" for clients that need names')


class NodeSettings(_Model):
    """The whole document."""

    hosts: list[str] = Field(min_length=1, description="the registry's names with ports, as in image names")
    scheme: Literal["https", "http"] = Field("https", description="what these hosts speak")
    ca: str | None = Field(None, description="PEM of the authority to trust; unset: a publicly trusted certificate")
    ca_file: Path | None = Field(None, description="file with that PEM, read again and again")
    dial_timeout: Duration = Field(2, gt=0, le=60, description="seconds in which a registry must be reached")
    mirror: MirrorSettings | None = Field(None, description="registries, url, upstreams")
    addresses: dict[str, AddressSettings] = Field({}, description="names for the nodes' hosts files")
    clients: list[Client] | None = Field(None, description="whose files to write; unset: of those that are there")
    state: Literal["present", "absent"] = Field("present", description="absent: take everything away again")

    @model_validator(mode="after")
    def _one_authority(self) -> "NodeSettings":
        if self.ca is not None and self.ca_file is not None:
            raise ValueError("ca and ca_file are two ways to say one thing")
        return self

    def site(self, addresses: Mapping[str, str]) -> Site:
        """The site with these addresses; reads `ca_file`. Raises StartError."""
        mirror = self.mirror
        ca = self.ca if self.ca_file is None else _read(self.ca_file)
        return Site(
            hosts=tuple(dict.fromkeys(words.parse_host(host) for host in self.hosts)),
            scheme=self.scheme,
            ca=words.parse_certificates(ca) if ca else None,
            dial_timeout=self.dial_timeout,
            mirrors=tuple(words.parse_mirrored(name) for name in mirror.registries) if mirror else (),
            mirror_url=words.parse_url(mirror.url) if mirror and mirror.url else None,
            upstreams=tuple(words.parse_host(name) for name in mirror.upstreams) if mirror else (),
            addresses={words.parse_name(name): words.parse_address(one) for name, one in addresses.items()},
        )


def load(path: Path) -> NodeSettings:
    """Reads the document. Raises StartError, a line for each mistake."""
    document = documents.without_nulls(documents.read_mapping(path))
    try:
        settings = NodeSettings.model_validate(document)
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)]
        raise StartError("\n".join(line.replace(": : ", ": ") for line in lines)) from None
    for name in settings.addresses:
        words.parse_name(name)
    return settings


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise StartError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from None
    except UnicodeDecodeError:
        raise StartError(f"{path} is not UTF-8 text") from None
