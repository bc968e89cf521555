"""Events fit into a message, whatever stands in a row."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kappa_gateway.events.sources.sizes import shrink

VALUES = st.one_of(st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(allow_nan=False), st.text())
IMAGES = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=6), max_size=2)


@given(IMAGES, st.integers(1, 2000))
def test_what_is_left_fits(images: list[dict[str, Any]], limit: int) -> None:
    names = {name for image in images for name in image}
    omitted = shrink(images, limit=limit)
    left = {name for image in images for name in image}
    assert (left | set(omitted), left & set(omitted)) == (names, set())
    texts = [json.dumps(value, ensure_ascii=False) for image in images for value in image.values()]
    assert sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) <= limit


def test_the_largest_goes_first_and_what_is_to_be_kept_last() -> None:
    image = {"id": "i" * 3000, "large": "x" * 2000, "small": "y" * 1500}
    assert shrink([image], keep=["id"], limit=4000) == ["large", "small"]
    assert list(image) == ["id"]
    assert shrink([image], keep=["id"], limit=100) == ["id"]


def test_both_images_lose_the_same_columns() -> None:
    old, new = {"a": "x" * 1000, "b": 1}, {"a": "y", "b": 2}
    assert shrink([old, new], limit=500) == ["a"]
    assert (old, new) == ({"b": 1}, {"b": 2})


def test_what_fits_is_left_alone() -> None:
    image = {"a": "x" * 50_000, "b": list(range(1000))}
    before = dict(image)
    assert shrink([image]) == []
    assert image == before
