"""The XML that S3 speaks: listings, errors, multipart answers."""

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import unquote_plus
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from storage.driver import Entry, Page
from storage.errors import Corrupt


def parse_listing(body: bytes) -> Page:
    """A ListObjectsV2 answer that was asked for with `encoding-type=url`.

    Raises Corrupt for anything else: what somebody between here and the store says instead is no empty listing.
    """
    root = _root(body)
    if _local(root.tag) != "ListBucketResult":
        raise Corrupt("the store's listing is none")
    space = root.tag.removesuffix("ListBucketResult")
    more = root.findtext(f"{space}IsTruncated")
    if more not in ("true", "false"):
        raise Corrupt("the store's listing does not say whether it is whole")
    try:
        return Page([_entry(item, space) for item in root.iterfind(f"{space}Contents")], more == "true")
    except (KeyError, ValueError, OverflowError) as exc:
        raise Corrupt(f"the store's listing cannot be understood: {exc}") from exc


def _entry(item: ElementTree.Element, space: str) -> Entry:
    """One key of a listing. Raises KeyError, ValueError, OverflowError."""
    fields = {child.tag: child.text or "" for child in item}
    modified = datetime.fromisoformat(fields[f"{space}LastModified"])
    return Entry(
        key=unquote_plus(fields[f"{space}Key"]),
        size=int(fields[f"{space}Size"]),
        modified=(modified if modified.tzinfo else modified.replace(tzinfo=UTC)).timestamp(),
        version=fields[f"{space}ETag"],
    )


def parse_fields(body: bytes) -> dict[str, str]:
    """The root's name under "" and its direct children's texts; empty for an empty or unreadable body."""
    if not body:
        return {}
    try:
        root = ElementTree.fromstring(body)  # noqa: S314  (the store is trusted, and expat here refuses entity bombs)
    except ElementTree.ParseError:
        return {}
    return {"": _local(root.tag)} | {_local(child.tag): child.text or "" for child in root}


def parse_late_failure(body: bytes) -> tuple[str, str] | None:
    """Code and message of the first failure in the body of a 200; None where this is no such answer."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314  (as above)
    except ElementTree.ParseError:
        return None
    if _local(root.tag) not in ("Error", "DeleteResult"):
        return None
    found = next((item for item in root.iter() if _local(item.tag) == "Error"), None)
    if found is None:
        return None
    fields = {_local(child.tag): child.text or "" for child in found}
    return fields.get("Code", ""), fields.get("Message", "")


def completion(parts: Sequence[tuple[int, str, int]]) -> bytes:
    """The body of CompleteMultipartUpload from (number, ETag, size)."""
    rows = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{escape(etag)}</ETag></Part>" for n, etag, _ in parts)
    return f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()


def deletion(keys: Sequence[str]) -> bytes:
    """The body of DeleteObjects, in quiet mode."""
    rows = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f"<Delete><Quiet>true</Quiet>{rows}</Delete>".encode()


def _root(body: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(body)  # noqa: S314  (as above)
    except ElementTree.ParseError as exc:
        raise Corrupt("the store's listing is no XML") from exc


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
