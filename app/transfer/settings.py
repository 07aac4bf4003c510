"""What an operator may set about images on their way in and out; each field is a key below `transfer:`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from app.quantities import Duration, Size


class TransferSettings(BaseModel):
    """Imports, and the folder that is watched for archives."""

    model_config = ConfigDict(extra="forbid")

    watch: Path | None = Field(
        None, description="folder whose archives are imported, at start and when they appear; nothing in it is changed"
    )
    watch_interval: Duration = Field(
        1.0, gt=0, description="seconds between two looks into it; an archive that is the same in both is complete"
    )
    max_bytes: Size = Field(
        64 << 30, ge=1 << 20, description="most bytes of one archive, unpacked; larger ones are refused"
    )
