"""The examination of one installation: the groups of `app.doctor`, composed from its configuration and the options."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from app.cli.installation import Installation, chain_of, open_store
from app.doctor import configuration
from app.doctor.certificate import certificate_names, examine_certificate
from app.doctor.clients import Wanted, examine_clients
from app.doctor.groups import Group
from app.doctor.inside import open_inside
from app.doctor.limits import within
from app.doctor.names import Host
from app.doctor.over_http import Login, OverHttp, open_http
from app.doctor.port import Place, examine_port
from app.doctor.programs import examine_names, examine_node_port, find_versions
from app.doctor.pull_secret import examine_pull_secret
from app.doctor.report import Check, Report, failed, ok, warning
from app.doctor.round_trip import Refused, examine_round_trip
from app.doctor.store import Opened, examine_redirect
from app.doctor.upstreams import LIMIT, UpstreamExamination
from app.errors import StartError
from app.nodes.root import Root
from app.nodes.site import authority_in
from app.proxy.settings import UpstreamSettings
from app.settings import Listener, Settings
from storage import StorageError

T = TypeVar("T")

_READ_LIMIT: Final = 4.0
_FILES_LIMIT: Final = 10.0
_STORE_LIMIT: Final = 40.0
_TRIP_LIMIT: Final = 45.0
_CLIENTS_LIMIT: Final = 15.0
_DISK: Final = "findmnt -t nfs,nfs4,cifs,fuse, and mend the mount that does not answer"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command was told. `hosts` are as in image names, `ca` is PEM; `root` is `/` of the host of the clients."""

    groups: frozenset[Group]
    hosts: Sequence[str]
    ca: str | None
    ca_file: Path | None
    url: str | None
    login: Login | None
    pull_secret: Path | None
    root: Path
    config: Path | None

    @property
    def tls(self) -> bool | None:
        """Whether the registry speaks TLS, as far as the command was told: a node that pulls has no configuration of it."""
        if self.url is not None:
            return self.url.startswith("https:")
        return True if self.ca is not None else None


class Examination:
    """One examination. `installation` is None where the configuration cannot be read; `refusal` says why."""

    def __init__(self, asked: Asked, installation: Installation | None, refusal: str | None) -> None:
        self.secrets: set[str] = {asked.login.password} if asked.login else set()
        self.versions: dict[str, str] = {}
        self.metrics: str | None = None
        self._asked = asked
        self._installation = installation
        self._refusal = refusal or (installation.refusal if installation else None)
        self._settings = installation.settings if installation else Settings()
        self._hosts = (
            installation.hosts(asked.hosts, tls=asked.tls)
            if installation
            else [Host(name, "https") for name in asked.hosts]
        )
        self._ca = asked.ca
        self._name: str | None = None
        self._url = asked.url
        self._may_push = asked.url is not None
        self._read_only = False
        self._checks: dict[Group, list[Check]] = {group: [] for group in Group}
        self._skipped: dict[str, str] = {}

    async def run(self) -> Report:
        """Looks at everything that was asked for; never raises because something is broken."""
        if self._installation is not None:
            self.secrets |= set(await _soon(partial(_secrets, self._installation)))
            self._trust(await _soon(partial(chain_of, self._settings)))
            await self._look_at_ports(self._installation)
        async with asyncio.TaskGroup() as tasks:
            for group, work in self._work():
                tasks.create_task(self._fill(group, work))
        report = Report(skipped=self._skipped)
        if self._asked.groups == {Group.PULL_SECRET} and self._asked.pull_secret is None:
            report.skipped[Group.PULL_SECRET] = "name it with --pull-secret FILE"
        if self._asked.groups == {Group.UPSTREAMS} and not self._settings.proxy.upstreams:
            report.skipped.setdefault(Group.UPSTREAMS, "none is configured")
        for group in Group:
            if group in self._asked.groups and self._checks[group]:
                report.groups[group] = self._checks[group]
        return report

    def _work(self) -> Iterator[tuple[Group, Coroutine[Any, Any, Sequence[Check]]]]:
        """The work of each group that was asked for and can be done."""
        asked = self._asked.groups
        if Group.CONFIGURATION in asked:
            yield Group.CONFIGURATION, within("files", _FILES_LIMIT, _DISK, self._configuration())
        if Group.CLIENTS in asked:
            yield Group.CLIENTS, within("clients", _CLIENTS_LIMIT, _DISK, self._clients())
        if Group.PULL_SECRET in asked and self._asked.pull_secret is not None:
            fix = "edge-registry doctor --only round-trip"
            yield Group.PULL_SECRET, within("login", _CLIENTS_LIMIT, fix, self._pull_secret(self._asked.pull_secret))
        if self._installation is None:
            lost = {Group.PORT, Group.CERTIFICATE, Group.STORE, Group.ROUND_TRIP, Group.UPSTREAMS} & asked
            self._skipped |= {group: "the configuration cannot be read" for group in Group if group in lost}
            return
        if Group.CERTIFICATE in asked:
            yield Group.CERTIFICATE, within("files", _FILES_LIMIT, _DISK, self._certificate())
        if {Group.STORE, Group.ROUND_TRIP} & asked:
            yield Group.STORE, self._store()
        if Group.UPSTREAMS in asked and self._settings.proxy.air_gapped:
            self._skipped[Group.UPSTREAMS] = "proxy.air_gapped is set, so that none is dialled"
        elif Group.UPSTREAMS in asked:
            for place, upstream in enumerate(self._settings.proxy.upstreams):
                fix = f"curl -sv -m 5 {upstream.url.rstrip('/')}/v2/, which shows where it hangs"
                yield (
                    Group.UPSTREAMS,
                    within(upstream.name, LIMIT, fix, _upstream(upstream, f"proxy.upstreams.{place}")),
                )

    async def _fill(self, group: Group, work: Coroutine[Any, Any, Sequence[Check]]) -> None:
        self._checks[group] += await work

    def _trust(self, chain: Sequence[Any]) -> None:
        """How a client that was set up rightly knows the server: by the authority, and by a name in the certificate."""
        self._ca = self._ca or authority_in(chain)
        if chain and self._asked.url is None:
            names = certificate_names(chain[0])
            public = next((host.name for host in self._hosts if host.name in names), None)
            self._name = public or next((name for name in names if not name.startswith("*")), None)

    async def _look_at_ports(self, installation: Installation) -> None:
        served: list[tuple[Listener, str]] = []
        for listener, place in installation.listeners():
            check, url = await _bounded_port(place)
            self._checks[Group.PORT].append(check)
            served += [(listener, url)] if url else []
        if self._url is None and served:
            # By the door through which most can be tried.
            listener, self._url = max(served, key=lambda one: (not one[0].read_only, one[0].anonymous == "push"))
            login = self._asked.login is not None and not listener.open_door
            self._read_only = listener.read_only
            self._may_push = not listener.read_only and (login or listener.anonymous == "push")

    async def _configuration(self) -> list[Check]:
        found = configuration.refusals(self._refusal) if self._refusal else []
        if self._installation is None:
            return found
        return found + await asyncio.to_thread(lambda one: list(self._configured(one)), self._installation)

    def _configured(self, installation: Installation) -> Iterator[Check]:
        if not self._refusal:
            yield ok("settings", installation.summary())
            yield from configuration.examine_ways(installation.ways(), users=installation.users)
        yield from configuration.cautions(installation.warnings)
        pod = "KUBERNETES_SERVICE_HOST" in os.environ  # where there is nobody else
        yield from configuration.examine_files(installation.files(), shared=not pod)
        if self._settings.auth.htpasswd is not None:
            yield from configuration.examine_users(self._settings.auth.htpasswd)

    async def _certificate(self) -> list[Check]:
        tls = self._settings.http.tls
        if tls.certificate is not None and tls.key is not None:
            return await asyncio.to_thread(examine_certificate, tls.certificate, tls.key, self._hosts)
        if (self._settings.http.public_url or "").startswith("https:"):
            return [ok("certificate", "none here: whoever stands at http.public_url speaks TLS")]
        if all(way.loopback for way in self._installation.ways()) if self._installation else True:
            return [ok("certificate", "none, and none is needed: only this machine reaches the registry")]
        names = " ".join(f"--name {host.name}" for host in self._hosts) or "--name HOST"
        found = "none: docker and containerd on other machines refuse a registry without TLS"
        return [warning("certificate", found, f"edge-registry setup certs {names}, and set http.tls as it says")]

    async def _store(self) -> list[Check]:
        """The store, and the round trip, which needs it."""
        opened, checks = Opened(None, None, ()), list[Check]()
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_STORE_LIMIT):
                    opened = await stack.enter_async_context(open_store(self._settings))
                checks += opened.checks
            except TimeoutError:
                fix = "restart the store, and see its own log"
                checks.append(failed("requests", f"no answer within {_STORE_LIMIT:g} s", fix))
            if opened.driver is not None and self._settings.storage.s3.redirect and Group.STORE in self._asked.groups:
                redirect = examine_redirect(opened.driver, self._settings.storage.s3)
                checks += await within("redirect", _STORE_LIMIT, "set storage.s3.redirect: false", _alone(redirect))
            if Group.ROUND_TRIP in self._asked.groups:
                fix = "edge-registry doctor --only store"
                trip = within("round trip", _TRIP_LIMIT, fix, self._round_trip(opened))
                self._checks[Group.ROUND_TRIP] += await trip
        return checks

    async def _round_trip(self, opened: Opened) -> list[Check]:
        checks: list[Check] = []
        if self._url is not None and self._may_push:
            async with self._door(self._asked.login) as door:
                return await examine_round_trip(door, opened.driver)
        if self._url is not None:
            found = (
                f"{self._url} {'takes no pushes' if self._read_only else 'asks who pushes'}: only the store was tried"
            )
            again = warning("server", found, "edge-registry doctor --user NAME --password-stdin")
            checks.append(ok("server", found) if self._read_only else again)
        if opened.driver is None or opened.capabilities is None:
            self._skipped |= {} if checks else {Group.ROUND_TRIP: "no registry runs here, and the store cannot be used"}
            return checks
        try:
            async with open_inside(opened.driver, opened.capabilities) as door:
                return checks + await examine_round_trip(door, door.corner)
        except StorageError as exc:
            return [*checks, failed("delete", str(exc), "edge-registry doctor --only store")]

    async def _clients(self) -> list[Check]:
        root = self._asked.root
        if root == Path("/"):
            self.versions = await find_versions()
        given = (("--ca", self._asked.ca_file), ("--config", self._asked.config))
        wanted = Wanted(self._hosts, self._ca, [word for name, path in given if path for word in (name, str(path))])
        found = await asyncio.to_thread(examine_clients, Root(root), wanted, self.versions)
        return [*await examine_names(self._hosts), *await examine_node_port(self._hosts), *found]

    async def _pull_secret(self, path: Path) -> list[Check]:
        checks, passwords = await examine_pull_secret(path, self._hosts, self._let_in)
        self.secrets |= set(passwords)
        return checks

    async def _let_in(self, login: Login) -> bool | None:
        """Whether the server, or else the file of users, knows a login."""
        if self._url is not None:
            try:
                async with self._door(login) as door:
                    return await door.ping()
            except Refused:
                return None
        htpasswd = self._settings.auth.htpasswd
        if htpasswd is None:
            return None
        return await asyncio.to_thread(configuration.knows, htpasswd, login.user, login.password)

    async def fetch_metrics(self) -> None:
        """Asks the server for its metrics, for the bundle; leaves `metrics` as it is where it does not answer."""
        if self._url is None:
            return
        try:
            async with asyncio.timeout(_CLIENTS_LIMIT), self._door(None) as door:
                self.metrics = await door.text("/metrics")
        except (Refused, TimeoutError):
            return

    def _door(self, login: Login | None) -> AbstractAsyncContextManager[OverHttp]:
        return open_http(self._url or "", login, self._ca, name=self._name)


def _secrets(installation: Installation) -> list[str]:
    return list(installation.secrets())


async def _soon(work: Callable[[], list[T]]) -> list[T]:
    """What `work` reads from files; nothing where they do not open, which the groups will say."""
    try:
        return await asyncio.wait_for(asyncio.to_thread(work), _READ_LIMIT)
    except TimeoutError:
        return []


async def _bounded_port(place: Place) -> tuple[Check, str | None]:
    try:
        return await asyncio.wait_for(examine_port(place), _READ_LIMIT)
    except TimeoutError:
        name = f"{place.host}:{place.port}"
        return failed(name, f"no answer within {_READ_LIMIT:g} s", f"getent hosts {place.host}, and mend DNS"), None


async def _upstream(settings: UpstreamSettings, key: str) -> list[Check]:
    try:
        examination = await asyncio.to_thread(UpstreamExamination, settings, key)  # it reads files
        return await examination.examine()
    except StartError as exc:
        return [failed(settings.name, str(exc), f"set {key}.credentials to something that can be used here")]


async def _alone(work: Awaitable[Check]) -> list[Check]:
    return [await work]
