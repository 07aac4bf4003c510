"""A random walk over the whole API, compared step by step with a model that fits on a page."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.settings import Settings
from storage.memory import MemoryDriver
from tests.services.app import running
from tests.services.client import INDEX, MANIFEST, Answer, Client, descriptor, digest_of, make_image, make_index, noise

NAMES = ("a", "a/b", "b")
BLOBS = [noise(size, "model") for size in (0, 1, 2, 3000)]
TAGS = ("t", "u", "0.1", "0.10")
SUBJECT = {"mediaType": MANIFEST, "digest": digest_of(b"subject"), "size": 1}
IMAGES = [
    make_image(BLOBS[1], config=BLOBS[0]).data,
    make_image(BLOBS[1], BLOBS[2], config=BLOBS[0]).data,
    make_image(BLOBS[3], config=BLOBS[0], subject=SUBJECT, artifactType="a/x").data,
    make_image(BLOBS[3], config=BLOBS[0], subject=SUBJECT, artifactType="a/y", annotations={"k": "v"}).data,
]
INDEXES = [make_index([descriptor(data, MANIFEST) for data in IMAGES[:n]]) for n in (1, 2)]
MANIFESTS = {digest_of(data): (data, MANIFEST) for data in IMAGES} | {
    digest_of(data): (data, INDEX) for data in INDEXES
}
NEEDS: dict[str, tuple[set[str], set[str]]] = {
    digest_of(IMAGES[0]): ({digest_of(BLOBS[0]), digest_of(BLOBS[1])}, set()),
    digest_of(IMAGES[1]): ({digest_of(BLOBS[0]), digest_of(BLOBS[1]), digest_of(BLOBS[2])}, set()),
    digest_of(IMAGES[2]): ({digest_of(BLOBS[0]), digest_of(BLOBS[3])}, set()),
    digest_of(IMAGES[3]): ({digest_of(BLOBS[0]), digest_of(BLOBS[3])}, set()),
    digest_of(INDEXES[0]): (set(), {digest_of(IMAGES[0])}),
    digest_of(INDEXES[1]): (set(), {digest_of(IMAGES[0]), digest_of(IMAGES[1])}),
}

names = st.sampled_from(NAMES)
blobs = st.sampled_from(BLOBS)
tags = st.sampled_from(TAGS)
manifests = st.sampled_from(sorted(MANIFESTS))


class Api(RuleBasedStateMachine):
    """Two replicas on one memory store; each request goes to a replica that hypothesis draws."""

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.blobs: set[tuple[str, str]] = set()
        self.manifests: set[tuple[str, str]] = set()
        self.tags: dict[tuple[str, str], str] = {}
        self.known: set[str] = set()
        self.clients: list[Client] = []
        self.stack = AsyncExitStack()
        self.runner.run(self.enter())

    async def enter(self) -> None:
        store = MemoryDriver()
        section = Settings.model_validate({"storage": {"driver": "memory"}})
        for _ in range(2):
            self.clients.append((await self.stack.enter_async_context(running(section, store.replica()))).client)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.stack.aclose())
            self.runner.close()

    def ask(self, at: int, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.runner.run(self.clients[at % 2].ask(method, target, sent, body))

    @rule(name=names, data=blobs, at=st.integers(0, 7), cut=st.integers(0, 3000), chunked=st.booleans())
    def push_blob(self, name: str, data: bytes, at: int, cut: int, chunked: bool) -> None:
        digest = digest_of(data)
        location = self.ask(at, "POST", f"/v2/{name}/blobs/uploads/").expect(202).location
        head = data[:cut]
        if head:
            headers = {"content_range": f"0-{len(head) - 1}"} if chunked else {}
            location = self.ask(at // 2, "PATCH", location, head, **headers).expect(202).location
        self.ask(at // 4, "PUT", f"{location}&digest={digest}", data[len(head) :]).expect(201)
        self.blobs.add((name, digest))

    @rule(name=names, origin=st.none() | names, data=blobs, at=st.integers(0, 1))
    def mount(self, name: str, origin: str | None, data: bytes, at: int) -> None:
        digest = digest_of(data)
        query = f"?mount={digest}" + (f"&from={origin}" if origin else "")
        answer = self.ask(at, "POST", f"/v2/{name}/blobs/uploads/{query}")
        there = any((other, digest) in self.blobs for other in ([origin] if origin else NAMES))
        assert answer.status in ((201, 202) if there else (202,))
        if origin and there:
            tombstoned = answer.status == 202  # the blob was deleted there or here a while ago: an upload it is
            assert not tombstoned or self.deleted_once(digest)
        if answer.status == 201:
            self.blobs.add((name, digest))

    def deleted_once(self, digest: str) -> bool:
        return digest in getattr(self, "deleted", set())

    @rule(name=names, data=blobs, at=st.integers(0, 1))
    def delete_blob(self, name: str, data: bytes, at: int) -> None:
        digest = digest_of(data)
        named = any(digest in NEEDS[other][0] for owner, other in self.manifests if owner == name)
        answer = self.ask(at, "DELETE", f"/v2/{name}/blobs/{digest}")
        self.runner.run(asyncio.sleep(0))
        if (name, digest) not in self.blobs:
            answer.expect(404)
        elif named:
            answer.expect(405)
        else:
            answer.expect(202)
            self.blobs.discard((name, digest))
            self.deleted = {*getattr(self, "deleted", set()), digest}

    @rule(name=names, digest=manifests, tag=st.none() | tags, at=st.integers(0, 1))
    def put_manifest(self, name: str, digest: str, tag: str | None, at: int) -> None:
        data, media_type = MANIFESTS[digest]
        blobs_, children = NEEDS[digest]
        held = {known for owner, known in self.blobs if owner == name}
        listed = {known for owner, known in self.manifests if owner == name}
        missing = (blobs_ - held) | (children - listed)
        answer = self.ask(at, "PUT", f"/v2/{name}/manifests/{tag or digest}", data, content_type=media_type)
        if missing:
            found = {entry["detail"]["digest"] for entry in answer.expect(404).json()["errors"]}
            assert found
            assert found <= missing
            return
        answer.expect(201)
        self.manifests.add((name, digest))
        self.known.add(name)
        if tag:
            self.tags[name, tag] = digest

    @rule(name=names, digest=manifests, at=st.integers(0, 1))
    def delete_manifest(self, name: str, digest: str, at: int) -> None:
        there = (name, digest) in self.manifests
        self.ask(at, "DELETE", f"/v2/{name}/manifests/{digest}").expect(202 if there else 404)
        self.manifests.discard((name, digest))
        self.tags = {key: named for key, named in self.tags.items() if (key[0], named) != (name, digest)}

    @rule(name=names, tag=tags, at=st.integers(0, 1))
    def delete_tag(self, name: str, tag: str, at: int) -> None:
        answer = self.ask(at, "DELETE", f"/v2/{name}/manifests/{tag}")
        if (name, tag) in self.tags:
            answer.expect(202)
        assert answer.status in (202, 404)  # a tag whose manifest was deleted may still be taken away
        self.tags.pop((name, tag), None)

    @rule(name=names, data=blobs, at=st.integers(0, 1))
    def get_blob(self, name: str, data: bytes, at: int) -> None:
        there = (name, digest_of(data)) in self.blobs
        answer = self.ask(at, "GET", f"/v2/{name}/blobs/{digest_of(data)}").expect(200 if there else 404)
        assert not there or answer.body == data
        self.ask(at, "HEAD", f"/v2/{name}/blobs/{digest_of(data)}").expect(200 if there else 404)

    @rule(name=names, reference=manifests | tags, at=st.integers(0, 1))
    def get_manifest(self, name: str, reference: str, at: int) -> None:
        digest: Any = reference if ":" in reference else self.tags.get((name, reference))
        there = (name, digest) in self.manifests
        answer = self.ask(at, "GET", f"/v2/{name}/manifests/{reference}").expect(200 if there else 404)
        self.ask(at, "HEAD", f"/v2/{name}/manifests/{reference}").expect(200 if there else 404)
        if there:
            assert (answer.body, answer.header("content-type")) == MANIFESTS[digest]

    @invariant()
    def lists(self) -> None:
        if not hasattr(self, "runner"):
            return
        for name in NAMES:
            answer = self.ask(1, "GET", f"/v2/{name}/tags/list").expect(200 if name in self.known else 404)
            if name in self.known:
                assert answer.json()["tags"] == sorted(tag for owner, tag in self.tags if owner == name)
            found = self.ask(0, "GET", f"/v2/{name}/referrers/{SUBJECT['digest']}").expect(200).json()["manifests"]
            expected = {digest_of(data) for data in IMAGES[2:] if (name, digest_of(data)) in self.manifests}
            assert {entry["digest"] for entry in found} == expected
        catalog = self.ask(0, "GET", "/v2/_catalog").json()["repositories"]
        assert catalog == sorted(self.known)


Api.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
TestApi = Api.TestCase
