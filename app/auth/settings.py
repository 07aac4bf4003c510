"""What an operator may set about access; each field is a key below `auth:`."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AuthSettings(BaseModel):
    """Users in an htpasswd file, and what people without one may do."""

    model_config = ConfigDict(extra="forbid")

    htpasswd: Path | None = Field(None, description="file of users with bcrypt hashes; see `edge-registry user add`")
    realm: str = Field(
        "Edge Registry",
        pattern=r"^[ !#-\[\]-~]{1,128}$",
        description="realm of the Basic challenge; no quotes or backslashes",
    )
    anonymous: Literal["none", "pull", "push"] | None = Field(
        None,
        description="what callers without credentials may do; unset: nothing where there are users, everything on a "
        "loopback address where there are none",
    )
    verdict_seconds: float = Field(300, ge=0, description="how long a verified password is remembered, in seconds")
