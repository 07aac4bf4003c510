"""The caller: who sends a request, as far as this server knows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """A user by name, or nobody in particular (`name` is None)."""

    name: str | None

    @property
    def anonymous(self) -> bool:
        """True for a caller without credentials."""
        return self.name is None
