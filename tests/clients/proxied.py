"""A registry process that pulls through, with what stands behind it: a front and a CNCF Distribution an upstream."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.services.front import Front
from tests.services.front.server import Outage
from tests.services.images import Layout
from tests.services.minio import free_port
from tests.services.registry import Credentials, RegistryServer, filesystem_store
from tests.services.upstreams import Distribution


@dataclass
class Upstream:
    """What stands behind one name; `settings` are further keys of it, `prefix` a path that its URL ends with.

    `users` is whose password the registry there wants; the proxy finds it in an image pull secret's config.json.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    users: Credentials | None = None
    prefix: str = ""


@dataclass
class Edge:
    """The running registry, and by each upstream's name the registry there and the front before it."""

    server: RegistryServer
    origins: Mapping[str, Distribution]
    fronts: Mapping[str, Front]
    hosts: Sequence[str]
    """`address:port` of each listener; the first is the server's own."""

    @property
    def host(self) -> str:
        """`address:port` of the first listener."""
        return self.server.host

    def push(self, upstream: str, repository: str, layout: Layout, tag: str = "latest") -> str:
        """Puts an image into the upstream itself and returns its digest."""
        return self.origins[upstream].pusher.layout(repository, layout, tag)

    @contextmanager
    def offline(self, *upstreams: str, how: Outage = "refused", restart: bool = False) -> Iterator[None]:
        """These upstreams cannot be reached; with `restart`, the server is another process by then.

        Afterwards it goes on to think that they are gone for some seconds: `forget_outage`, or use them no more.
        """
        if restart:
            self.server.stop()
        for name in upstreams:
            self.fronts[name].down(how)
        try:
            if restart:
                self.server.start()
            yield
        finally:
            for name in upstreams:
                self.fronts[name].up()

    def forget_outage(self) -> None:
        """Makes the server another process, which knows nothing of the past."""
        self.server.stop()
        self.server.start()


@contextmanager
def open_edge(
    program: Path,
    folder: Path,
    upstreams: Mapping[str, Upstream],
    *,
    default: str | None = None,
    listeners: Sequence[Mapping[str, Any]] = (),
    users: Credentials | None = None,
    tls: bool = False,
) -> Iterator[Edge]:
    """Starts everything; `program` is Distribution's. `listeners` get free ports; the first keeps to `tls`."""
    with ExitStack() as stack:
        origins: dict[str, Distribution] = {}
        fronts: dict[str, Front] = {}
        written: list[dict[str, Any]] = []
        for name, upstream in upstreams.items():
            origins[name] = stack.enter_context(Distribution(program, folder / name, users=upstream.users))
            fronts[name] = stack.enter_context(Front(origins[name].url))
            written.append({"name": name, "url": fronts[name].url + upstream.prefix, **upstream.settings})
            if upstream.users:
                secret = _pull_secret(folder / name / "config.json", fronts[name].host, upstream.users)
                written[-1]["credentials"] = {"config": str(secret)}
        ports = [free_port() for _ in listeners] or [free_port()]
        settings = {
            "EDGE_REGISTRY_PROXY__UPSTREAMS": json.dumps(written),
            "EDGE_REGISTRY_PROXY__SPOOL__FOLDER": str(folder / "spool"),
        }
        if default:
            settings["EDGE_REGISTRY_PROXY__DEFAULT_UPSTREAM"] = default
        if listeners:
            found = [{"port": port, **listener} for port, listener in zip(ports, listeners, strict=True)]
            settings["EDGE_REGISTRY_LISTENERS"] = json.dumps(found)
        server = RegistryServer(
            folder / "server", filesystem_store(folder / "data"), users=users, tls=tls, settings=settings, port=ports[0]
        )
        stack.enter_context(server)
        yield Edge(server, origins, fronts, [f"127.0.0.1:{port}" for port in ports])


def _pull_secret(file: Path, host: str, user: Credentials) -> Path:
    pair = base64.b64encode(f"{user.name}:{user.password}".encode()).decode()
    file.write_text(json.dumps({"auths": {host: {"auth": pair}}}))
    return file
