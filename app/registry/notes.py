"""What an answer says beside its content; `api` turns it into headers."""

from dataclasses import dataclass


@dataclass(slots=True)
class Notes:
    """Filled while a request is answered. `name` is what the client calls the repository, where that is not the name
    under which it lies here. `namespace` echoes the `ns` that was asked (specification, "Registry Proxying");
    `age` in seconds since the content was last known to be right; `warning` is one line for people (RFC 7234, 5.5)."""

    name: str | None = None
    namespace: str | None = None
    age: float | None = None
    warning: str | None = None
