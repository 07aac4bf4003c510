"""The one place where a driver's failures become the specification's errors."""

from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from app.oci import errors
from storage import AccessDenied, ConditionFailed, FenceExpired, StorageError, StoreFull

P = ParamSpec("P")
T = TypeVar("T")


def translated(method: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorates a coroutine function of this room's public surface: it raises RegistryError, never StorageError."""

    @wraps(method)
    async def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except StorageError as exc:
            raise _meaning(exc) from exc

    return inner


def _meaning(exc: StorageError) -> errors.RegistryError:
    if isinstance(exc, StoreFull):
        return errors.StoreFull()
    if isinstance(exc, FenceExpired):
        return _later("the request took too long: send it again")
    if isinstance(exc, ConditionFailed):
        return _later("another request changed the same thing: send it again")
    if isinstance(exc, AccessDenied):
        return _later("the store refuses the registry's credentials")
    return _later("the store does not answer")


def _later(message: str) -> errors.Unavailable:
    return errors.Unavailable(message, headers={"Retry-After": "5"})
