"""The groups of checks."""

from enum import StrEnum


class Group(StrEnum):
    """The groups of checks, in the order of the report."""

    CONFIGURATION = "configuration"
    PORT = "port"
    CERTIFICATE = "certificate"
    STORE = "store"
    ROUND_TRIP = "round-trip"
    UPSTREAMS = "upstreams"
    CLIENTS = "clients"
    PULL_SECRET = "pull-secret"  # noqa: S105  (no secret)
