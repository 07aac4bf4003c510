"""What an operator may set about upkeep; each field is a key below `upkeep:`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from app.quantities import Duration, Size


class UpkeepSettings(BaseModel):
    """When servers look after their store."""

    model_config = ConfigDict(extra="forbid")

    interval: Duration = Field(
        86_400, ge=0, description="seconds between two collections of garbage, whichever replica does it; 0: never"
    )
    max_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of all bytes above which a collection deletes nothing and says so; below 256 MiB it never stops",
    )
    cache: Path | None = Field(
        None,
        description="folder in which what manifests name is remembered over restarts; unset: as long as the process lives",
    )
    verify_interval: Duration = Field(
        0,
        ge=0,
        description=(
            "seconds between two looks for decay, whichever replica takes them; 0: never. 1d is sensible; it is not the"
            " default because a look reads every manifest and tag and a share of all blobs, which some stores charge for"
        ),
    )
    verify_share: float = Field(
        0.04,
        ge=0,
        le=1,
        description="share of all blobs that a look reads and hashes; the next goes on where it ended",
    )
    verify_rate: Size = Field(16 << 20, ge=1024, description="most bytes of blobs that a look reads a second")
    verify_repair: bool = Field(
        False, description="mend what a look finds, as `edge-registry verify --repair` does; else it is only said"
    )
