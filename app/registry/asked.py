"""What a request says about the repository that it wants, as the client wrote it."""

from collections.abc import Callable
from dataclasses import dataclass

from app.oci.names import Name

MayPull = Callable[[Name], bool]


@dataclass(frozen=True, slots=True)
class Asked:
    """`name` from the path; `namespace` from `?ns=` (containerd, BuildKit); `upstream` from `X-Registry`; `fallback` is the
    listener's upstream for plain names; `agent` names the client; `writable` says whether pushes go to this listener."""

    name: str
    namespace: str | None = None
    upstream: str | None = None
    fallback: str | None = None
    agent: str = ""
    writable: bool = True
