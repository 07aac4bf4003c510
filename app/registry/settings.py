"""What an operator may set about content; each field is a key below `registry:`."""

from pydantic import BaseModel, ConfigDict, Field


class RegistrySettings(BaseModel):
    """Rules of content and the protocol's lifetimes."""

    model_config = ConfigDict(extra="forbid")

    allow_sparse: bool = Field(False, description="accept manifests whose layers or children are missing")
    delete: bool = Field(True, description="allow DELETE of tags, manifests and blobs")
    read_only: bool = Field(
        False,
        description="refuse every push, delete and import over HTTP, to watch a folder, and the commands import, copy, adopt "
        "and restore",
    )
    immutable_tags: list[str] = Field([], description="patterns `repository:tag` of tags that, once pushed, never move")
    manifest_cache_bytes: int = Field(32 << 20, ge=0, description="memory for manifests by digest")
    time_scale: float = Field(
        1.0,
        gt=0,
        le=1,
        description="scales fence, intent, tombstone, grace and upload lives together, down to seconds; for tests",
    )
