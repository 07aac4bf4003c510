"""The one place where an upstream's failures become the specification's errors, which clients know how to take.

Never 401, for which clients would send secrets, and never 429, which containerd repeats at once.
"""

from app.oci import errors
from app.proxy.errors import Denied, Missing, UpstreamError

_RETRY_AFTER = 10.0


def meaning(failure: UpstreamError, missing: errors.RegistryError) -> errors.RegistryError:
    """What a client is told; `missing` is what it is told for a definite no."""
    if isinstance(failure, Missing):
        return missing
    if isinstance(failure, Denied):
        return errors.Denied(failure.reason)
    after = max(1, round(failure.retry_after or _RETRY_AFTER))
    return errors.Unavailable(failure.reason, headers={"Retry-After": str(min(after, 3600))})
