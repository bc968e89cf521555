"""How much memory the bodies may take that are held for callers who wait, and who may have how much of it.

There is one budget for the whole gateway: a thousand callers who wait with 64 KiB each, for every function that is
overloaded, would end it. A function may hold as much as is still free for all others (the dynamic threshold of
shared-memory switches, Choudhury and Hahne 1998): one that is overloaded alone gets half of the budget, two get a third
each, and there is always room for the body of a function that holds nothing yet.
"""

from typing import Protocol


class Holder(Protocol):
    """A function, as the budget sees it."""

    held: int  # bytes


class Held:
    """The budget. `total` in bytes."""

    __slots__ = ("total", "used")

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0

    def __repr__(self) -> str:
        return f"<Held {self.used} of {self.total} bytes>"


class Purse:
    """What one body takes of the budget, on its function's account. `close` gives all of it back."""

    __slots__ = ("_budget", "_holder", "size")

    def __init__(self, budget: Held, holder: Holder) -> None:
        self._budget, self._holder = budget, holder
        self.size = 0

    def take(self, size: int) -> bool:
        """Counts `size` bytes more, if the function may have them."""
        budget, holder = self._budget, self._holder
        if holder.held + size > budget.total - budget.used - size:
            return False
        holder.held += size
        budget.used += size
        self.size += size
        return True

    def close(self) -> None:
        """May be called again."""
        self._holder.held -= self.size
        self._budget.used -= self.size
        self.size = 0
