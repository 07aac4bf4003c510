"""The XML that S3 speaks: listings, errors, multipart answers."""

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import unquote_plus
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from storage.driver import Entry, Page
from storage.errors import Corrupt


def parse_listing(body: bytes) -> Page:
    """A ListObjectsV2 answer that was asked for with `encoding-type=url`."""
    root = _root(body)
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    entries = []
    for item in root.iterfind(f"{space}Contents"):
        fields = {child.tag: child.text or "" for child in item}
        entries.append(
            Entry(
                key=unquote_plus(fields[f"{space}Key"]),
                size=int(fields[f"{space}Size"]),
                modified=datetime.fromisoformat(fields[f"{space}LastModified"]).timestamp(),
                version=fields[f"{space}ETag"],
            )
        )
    return Page(entries, more=root.findtext(f"{space}IsTruncated") == "true")


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
