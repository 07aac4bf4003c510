"""What a driver may raise, whatever the store behind it.

Our tree::

    StorageError
    ├── NotFound             the key is not there
    ├── NoStore              the bucket or folder itself is not there
    ├── ConditionFailed      the key is there already, or is not the version that was named
    ├── FenceExpired         the store refused a write whose deadline has passed; nothing was written by it
    ├── StoreFull            no room, or a quota; reads and deletes still work
    ├── AccessDenied         the store refuses these credentials, or this clock
    ├── Unsupported          this store cannot do that; the probe says so at start
    ├── Corrupt              fewer or other bytes than the store announced
    └── Unavailable          no answer, or "later"; safe to repeat
        └── OutcomeUnknown   a write may or may not have been applied, now or later
"""


class StorageError(Exception):
    """The root: a message for the operator, without secrets."""


class NotFound(StorageError):
    """The key is not there."""


class NoStore(StorageError):
    """The bucket or folder itself is not there."""


class ConditionFailed(StorageError):
    """The key is there already, or is not the version that was named."""


class FenceExpired(StorageError):
    """The store refused a write whose deadline has passed."""


class StoreFull(StorageError):
    """The store has no room for this write."""


class AccessDenied(StorageError):
    """The store refuses these credentials, or this clock."""


class Unsupported(StorageError):
    """The store cannot do that."""


class Corrupt(StorageError):
    """The store sent fewer or other bytes than it announced."""


class Unavailable(StorageError):
    """The store gave no answer, or asked to come back later."""


class OutcomeUnknown(Unavailable):
    """A write got no definite answer: it may have been applied, or may be later, until its fence ends."""
