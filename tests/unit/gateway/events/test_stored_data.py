"""Data of large events in its three forms: whatever the pieces, the JSON format is that of the whole event."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_api.cloudevents import CloudEvent
from kappa_gateway.events import json_text, stored_data
from kappa_gateway.events.delivery.composed import Part, parts_of_batch
from kappa_gateway.events.sink import encoded
from kappa_gateway.events.stored_data import SLICE, StoredData, heavy, json_pieces, pieces_of
from kappa_gateway.events.work import Work

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
DATA = VALUES.filter(lambda value: value is not None) | st.binary()


@pytest.fixture(autouse=True, params=[1, 3, 64], scope="module")
def slices(request: pytest.FixtureRequest) -> Any:
    """Small pieces: what is cut is cut everywhere."""
    patch = pytest.MonkeyPatch()
    patch.setattr(stored_data, "SLICE", request.param)
    patch.setattr(stored_data, "_ROW", 2)
    yield
    patch.undo()


def stored(event: CloudEvent) -> tuple[Work, bytes]:
    """As `LargeEvents` does it; the second is what the bucket has."""
    form, pieces = pieces_of(event)
    kept = list(pieces)
    told = StoredData(form, 0, 0)
    turned = told.turner()
    inline = sum(len(turned(piece, False)) for piece in kept) + len(turned(b"", True))
    data = StoredData(form, sum(map(len, kept)), inline)
    bare = CloudEvent(event.id, event.source, event.type, datacontenttype=event.datacontenttype)
    return Work("w", 1, encoded(bare), stored="name", data=data), b"".join(kept)


def composed(work: Work, kept: bytes, step: int) -> bytes:
    """What an instance would get of a batch of this event, where the bucket gives pieces of `step` bytes."""
    found, told = b"", 0
    for part in parts_of_batch([work]):
        told += part.size if isinstance(part, Part) else len(part)
        if isinstance(part, bytes):
            found += part
            continue
        turned = part.data.turner()
        found += b"".join(turned(kept[at : at + step], False) for at in range(0, len(kept), step)) + turned(b"", True)
    assert told == len(found)
    return found


@given(DATA, st.sampled_from(["", "text/plain", "application/json"]), st.integers(1, 9))
def test_it_is_put_together_as_it_was(data: Any, kind: str, step: int) -> None:
    event = CloudEvent("1", "/s", "t", datacontenttype=kind, data=data)
    work, kept = stored(event)
    assert json.loads(composed(work, kept, step)) == [json.loads(json.dumps(event.to_json()))]
    assert Work.read(work.headers(), work.body) == work


@given(VALUES)
def test_json_in_pieces_is_json(value: Any) -> None:
    assert json.loads(b"".join(json_pieces(value))) == value


@given(st.text(), st.integers(1, 7))
def test_half_characters_stay_halves(text: str, step: int) -> None:
    event = CloudEvent("1", "/s", "t", datacontenttype="text/plain", data="\ud800" + text)
    work, kept = stored(event)
    assert work.data is not None
    assert work.data.form == "json"
    assert json.loads(composed(work, kept, step))[0]["data"] == event.data


@given(VALUES, st.integers(0, 200))
def test_heavy_is_never_said_of_what_fits(value: Any, limit: int) -> None:
    size = len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass"))
    assert not heavy(value, limit) or size >= limit


def test_heavy_is_said_of_what_is_much_too_large() -> None:
    assert heavy("x" * 101, 100)
    assert heavy({"a": ["x" * 50, b"y" * 51]}, 100)
    assert heavy([0] * 1000, 100)
    assert not heavy({"a": "x" * 50}, 100)


def test_nothing_large_is_made_of_something_large() -> None:
    assert stored_data.SLICE < SLICE
    pieces = list(json_pieces({"text": "x" * 1000, "rows": [["y" * 100] * 10] * 10}))
    assert max(map(len, pieces)) <= 2 * stored_data.SLICE + 120


@pytest.mark.parametrize("text", ["", "[]", '["json", 1]', '["other", 1, 1]', '["json", "x", 1]', "{"])
def test_what_is_not_known_of_stored_data_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        StoredData.read(text)


@given(VALUES)
def test_large_json_is_read_as_small_json_is(value: Any) -> None:
    text = json.dumps(value)
    patch = pytest.MonkeyPatch()
    patch.setattr(json_text, "SMALL_BYTES", 0)
    try:
        assert json_text.loads(text) == value
        assert json_text.deep(json_text.loads("[" * 210 + "]" * 210))
        for bad in (text + "x", text[:-1] + "\x00", "[NaN]", "-Infinity", '["\x01"]'):
            with pytest.raises(ValueError, match=r"."):
                json_text.loads(bad)
        patch.setattr(json_text, "MOST_VALUES", 2)
        with pytest.raises(json_text.TooManyError):
            json_text.loads("[1,2,3]")
    finally:
        patch.undo()
