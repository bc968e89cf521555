"""The byte code of revisions, as their first instance compiled it, for those that follow.

A cache in memory, bounded; after a restart the next instance that starts is asked again. It is kept for each Function
apart: two Functions with the same code have the same revision id, but an instance answers for its own function only.
It also belongs to one image, since another may have another Python.
"""

from collections import OrderedDict
from dataclasses import dataclass

from kappa_api.wire import ByteCode, Specialize

#: All together, and of one revision. A revision that has more is compiled by every instance.
MOST_BYTES, MOST_OF_ONE = 48 << 20, 8 << 20
#: Larger code is sent without: a runtime takes 64 MiB in one message.
MOST_SOURCE_BYTES = 24 << 20
#: What an entry costs beside its bytes, about.
ENTRY_BYTES = 500


@dataclass(frozen=True, slots=True)
class Key:
    """What byte code is good for. `function` is `namespace/name`."""

    function: str
    revision: str
    image: str


class ByteCodes:
    """See the module. Remembers also which revisions have none worth keeping, so that they are asked once."""

    def __init__(self, most: int = MOST_BYTES, most_of_one: int = MOST_OF_ONE) -> None:
        self.most, self.most_of_one, self.size = most, most_of_one, 0
        self._items: OrderedDict[Key, ByteCode | None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<ByteCodes {len(self._items)} revisions, {self.size} of {self.most} bytes>"

    def known(self, key: Key) -> bool:
        """Whether an instance has answered, even that there is nothing."""
        return key in self._items

    def get(self, key: Key) -> ByteCode | None:
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key]

    def put(self, key: Key, found: ByteCode, message: Specialize) -> None:
        """Keeps what an instance answered to `message`; of that only what belongs to its files."""
        own = ByteCode(found.tag, {path: data for path, data in found.files.items() if path in message.files})
        kept = own if own.files and _size(own) <= self.most_of_one else None
        if key in self._items:
            self.size -= _size(self._items.pop(key))
        self._items[key] = kept
        self.size += _size(kept)
        while self.size > self.most:
            _, dropped = self._items.popitem(last=False)
            self.size -= _size(dropped)


def _size(found: ByteCode | None) -> int:
    return ENTRY_BYTES + (sum(len(path) + len(data) for path, data in found.files.items()) if found else 0)
