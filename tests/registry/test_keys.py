"""The bucket's keys: one to one, in byte order, and none the folder of another."""

import itertools

import pytest
from hypothesis import example, given, settings, strategies as st

from app.oci.digests import Digest, digest_of
from app.oci.manifests import parse_media_type
from app.oci.names import MAX_LENGTH, Name
from app.oci.references import Tag
from app.registry import keys
from app.registry.keys import Copy, Entry
from storage.keys import check_key
from tests.oci.strategies import digests, names, tags

A256, A512 = Digest("sha256:" + "0" * 64), Digest("sha512:" + "f" * 128)
nonces = st.text("0123456789abcdef", min_size=32, max_size=32)
copies = st.builds(Copy, nonces, st.integers(0, 10**13))
token = st.text("abzAZ09!#$&^_.+-", min_size=1, max_size=99).map("a".__add__)
media_types = st.tuples(token, token).map("/".join).map(parse_media_type)
entries = st.builds(Entry, digests.map(Digest), nonces, media_types, st.integers(0, 4 << 20))


def every_key(name: Name, tag: Tag, digest: Digest, copy: Copy, entry: Entry) -> list[str]:
    """One key of each kind."""
    return [
        keys.data(copy.uuid),
        keys.link(name, digest, copy),
        keys.holder(digest, copy, name),
        keys.manifest(name, entry),
        keys.tag(name, tag),
        keys.referrer(name, digest, entry.digest, entry.nonce),
        f"{keys.deletions(name)}{keys.fresh()}",
        keys.catalog(name),
        keys.upload_state(copy.uuid),
        f"{keys.SIGNING_KEYS}{keys.fresh()}",
        f"{keys.INTENTS}{keys.fresh()}",
        keys.tombstone(copy, keys.escape(name)),
        keys.tombstone(copy, keys.EVERYWHERE),
    ]


LONGEST = Name("/".join(["a" * 100] * 2 + ["b" * 52]))
LONG_TYPE = f"{'a' * 100}/{'b' * 100}"
everything = st.builds(every_key, names.map(Name), tags.map(Tag), digests.map(Digest), copies, entries)


@given(everything)
@example(every_key(LONGEST, Tag("t" * 128), A512, Copy("0" * 32, 10**13), Entry(A512, "0" * 32, LONG_TYPE, 1)))
@example(every_key(Name("a" * MAX_LENGTH), Tag("t"), A512, Copy("0" * 32, 1), Entry(A512, "0" * 32, LONG_TYPE, 1)))
def test_every_key_is_one_that_every_store_takes(found: list[str]) -> None:
    for key in found:
        check_key(key)
        assert all(len(segment) <= 255 for segment in key.split("/"))


@settings(max_examples=50)
@given(st.lists(everything, min_size=2, max_size=6))
def test_no_key_is_a_folder_of_another(found: list[list[str]]) -> None:
    together = {key for each in found for key in each}
    for key in together:
        assert not any(folder in together for folder in itertools.accumulate(key.split("/")[:-1], "{}/{}".format))


@given(st.lists(names, min_size=2, max_size=8, unique=True))
@example(["a", "a/b", "a-b", "a.b", "a_b", "a0", "ab", "a/b-c", "a/b/c"])
def test_catalog_keys_are_in_the_order_of_names_and_one_to_one(found: list[str]) -> None:
    by_key = sorted(found, key=lambda name: keys.catalog(Name(name)).encode())
    assert by_key == sorted(found, key=str.encode)
    assert len({keys.catalog(Name(name)) for name in found}) == len(found)
    assert len({keys.escape(Name(name)) for name in found}) == len(found)


@given(names.map(Name))
def test_catalog_keys_say_their_name_in_one_segment(name: Name) -> None:
    key = keys.catalog(name)
    assert "/" not in key.removeprefix(keys.CATALOG)  # MinIO loses keys of nested folders from its pages
    assert keys.catalogued(key) == name


@given(names.map(Name), digests.map(Digest), copies)
def test_links_and_holders_say_what_was_put_into_them(name: Name, digest: Digest, copy: Copy) -> None:
    link = keys.link(name, digest, copy)
    assert link.startswith(keys.links(name, digest))
    assert keys.copy_of(link) == copy
    holder = keys.holder(digest, copy, name)
    assert holder.startswith(keys.holders(digest))
    assert keys.holding(holder) == (copy, name)


@given(names.map(Name), entries)
def test_manifest_keys_say_what_was_put_into_them(name: Name, entry: Entry) -> None:
    key = keys.manifest(name, entry)
    assert key.startswith(keys.manifests(name, entry.digest))
    assert key.startswith(keys.manifests(name))
    assert keys.entry_of(key, entry.size) == entry


@given(names.map(Name), digests.map(Digest), digests.map(Digest), nonces)
def test_referrer_keys_say_what_was_put_into_them(name: Name, subject: Digest, digest: Digest, nonce: str) -> None:
    key = keys.referrer(name, subject, digest, nonce)
    assert key.startswith(keys.referrers(name, subject))
    assert keys.referring(key) == (digest, nonce)


@given(names.map(Name), names.map(Name), digests.map(Digest))
@example(Name("a"), Name("a/b"), A256)
def test_one_repositorys_prefix_never_lists_anothers(name: Name, other: Name, digest: Digest) -> None:
    if name == other:
        return
    copy = Copy("0" * 32, 1)
    assert not keys.link(other, digest, copy).startswith(keys.links(name, digest))
    assert not keys.tag(other, Tag("t")).startswith(keys.tags(name))
    assert not keys.manifest(other, Entry(digest, "0" * 32, "a/b", 1)).startswith(keys.manifests(name))


def test_a_fresh_name_is_never_used_twice() -> None:
    assert len({keys.fresh() for _ in range(1000)}) == 1000


@pytest.mark.parametrize("root", ["", "images", "a/b.c"])
def test_a_copy_that_distribution_wrote_says_where_it_lies(root: str) -> None:
    digest = digest_of(b"layer")
    hexadecimal = digest.partition(":")[2]
    copy = keys.adopted(digest, 5, root)
    folder = f"{root}/" if root else ""

    assert copy.adopted
    assert keys.data(copy.uuid) == f"{folder}docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"
    assert keys.copy_of(keys.link(Name("team/app"), digest, copy)) == copy
    assert keys.holding(keys.holder(digest, copy, Name("team/app"))) == (copy, Name("team/app"))
    check_key(keys.tombstone(copy, keys.EVERYWHERE))


def test_a_copy_of_our_own_is_not_adopted() -> None:
    copy = Copy(keys.fresh(), 5)
    assert not copy.adopted
    assert keys.data(copy.uuid) == f"data/{copy.uuid}"


def test_a_key_says_where_it_lies() -> None:
    name, digest = Name("a/b"), digest_of(b"layer")
    assert keys.placed(keys.link(name, digest, Copy(keys.fresh(), 5))) == (name, "blobs")
    assert keys.placed(keys.tag(name, Tag("v1"))) == (name, "tags")
    assert keys.digest_below(keys.link(name, digest, Copy(keys.fresh(), 5))) == digest
    assert keys.digest_below(keys.holder(digest, Copy(keys.fresh(), 5), name)) == digest
    assert keys.digest_below(keys.referrer(name, digest, digest_of(b"signature"), keys.fresh())) == digest
    with pytest.raises(ValueError, match="foreign"):
        keys.placed("repositories/foreign")
