"""A listing is one or is refused: nothing else passes for a page without keys."""

import time
from datetime import UTC, datetime

import pytest

from storage import Corrupt
from storage.s3_xml import parse_listing

SPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
KEY = (
    "<Contents><Key>a%2Fb</Key><LastModified>2026-02-01T10:00:00{zone}</LastModified>"
    "<ETag>e</ETag><Size>3</Size></Contents>"
)


def listing(*keys: str, truncated: str = "<IsTruncated>false</IsTruncated>", space: str = SPACE) -> bytes:
    return f"<ListBucketResult {space}>{truncated}{''.join(keys)}</ListBucketResult>".encode()


@pytest.mark.parametrize("space", [SPACE, ""])
@pytest.mark.parametrize("zone", ["Z", ".000Z", "+00:00", ""])
def test_a_time_without_a_zone_is_in_utc(zone: str, space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        page = parse_listing(listing(KEY.format(zone=zone), space=space))
    finally:
        monkeypatch.undo()
        time.tzset()
    (entry,) = page.entries
    assert (entry.key, entry.size, entry.version, page.more) == ("a/b", 3, "e", False)
    assert entry.modified == datetime(2026, 2, 1, 10, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(("said", "more"), [("true", True), ("false", False)])
def test_whether_more_follows_is_what_the_store_says(said: str, more: bool) -> None:
    assert parse_listing(listing(truncated=f"<IsTruncated>{said}</IsTruncated>")).more is more


@pytest.mark.parametrize(
    "body",
    [
        b'<html xmlns="http://www.w3.org/1999/xhtml"><body>sign in</body></html>',
        b"<Error><Code>SlowDown</Code></Error>",
        b"<IsTruncated>false</IsTruncated>",
        b"not XML",
        b"",
        listing(truncated=""),
        listing(truncated="<IsTruncated>maybe</IsTruncated>"),
        listing(KEY.format(zone="Z"))[:-30],
    ],
)
def test_what_is_no_listing_is_not_an_empty_page(body: bytes) -> None:
    with pytest.raises(Corrupt):
        parse_listing(body)


@pytest.mark.parametrize("field", ["Key", "LastModified", "ETag", "Size"])
def test_a_key_without_a_field_is_refused(field: str) -> None:
    with pytest.raises(Corrupt):
        parse_listing(listing(KEY.format(zone="Z").replace(field, "Other")))


@pytest.mark.parametrize(("field", "value"), [("3</Size>", "x</Size>"), ("2026-02-01T", "February ")])
def test_a_field_that_makes_no_sense_is_refused(field: str, value: str) -> None:
    with pytest.raises(Corrupt):
        parse_listing(listing(KEY.format(zone="Z").replace(field, value)))
