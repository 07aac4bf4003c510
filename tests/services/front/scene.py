"""The scene: what the connections of a front share, and tests change while they run."""

import asyncio
import base64
import ssl
import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.services.front.answers import HubLimit, Links
from tests.services.front.faults import Fault, Rule, Stage, merged
from tests.services.front.rates import Rate
from tests.services.front.records import Records
from tests.services.front.tokens import TokenService
from tests.services.registry import Credentials


@dataclass
class Target:
    """The registry behind the front, the authority that its certificate needs, and how to log in to it."""

    url: str
    context: ssl.SSLContext | None = None
    login: Credentials | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def authorization(self) -> str | None:
        """The header that logs in to it."""
        return None if self.login is None else basic(self.login)


@dataclass
class Scene:
    """One front's state. `gate` belongs to its event loop; everything else may be changed from any thread."""

    target: Target
    records: Records = field(default_factory=Records)
    rate: Rate = field(default_factory=Rate)
    links: Links = field(default_factory=Links)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    tokens: TokenService | None = None
    login: Credentials | None = None
    hub: HubLimit | None = None
    url: str = ""
    elsewhere_url: str = ""
    rules: list[Rule] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def guarded(self) -> bool:
        """Whether the front asks who is there; what clients say then is not passed on."""
        return self.tokens is not None or self.login is not None

    def take(self, stage: Stage, method: str, path: str) -> Fault:
        """What goes wrong with this request at this stage; counts the rules that say so."""
        with self.lock:
            return merged([rule.fault for rule in self.rules if rule.fault.stage == stage and rule.take(method, path)])


def basic(login: Credentials) -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(f"{login.name}:{login.password}".encode()).decode()
