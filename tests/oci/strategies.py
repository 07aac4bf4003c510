"""What hypothesis draws for the words of the specification: right ones, and strings that are nearly right."""

from hypothesis import strategies as st

HEX = "0123456789abcdef"

digests = st.one_of(
    st.text(HEX, min_size=64, max_size=64).map("sha256:".__add__),
    st.text(HEX, min_size=128, max_size=128).map("sha512:".__add__),
)
"""Valid digests."""

_words = st.text("abcz019", min_size=1, max_size=5)
_components = st.lists(_words, min_size=1, max_size=4).flatmap(
    lambda words: st.lists(
        st.sampled_from([".", "_", "__", "-", "---"]), min_size=len(words) - 1, max_size=len(words) - 1
    ).map(lambda joints: "".join(word + joint for word, joint in zip(words, [*joints, ""], strict=True)))
)
names = st.lists(_components, min_size=1, max_size=6).map("/".join)
"""Valid repository names."""

tags = st.tuples(st.sampled_from("abzAZ09_"), st.text("abzAZ09._-", max_size=127)).map("".join)
"""Valid tags."""

nearly_names = st.one_of(st.text("ab0._-/A ", max_size=12), st.text(max_size=20), names.map(lambda name: name + "\n"))
"""Strings that may or may not be names."""
