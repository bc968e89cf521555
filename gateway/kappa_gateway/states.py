"""The gateway's state machines: an instance as one gateway sees it, and an invocation's place in it.

`dispatch.py` is the only one that makes these moves, and the tables say which there are: an invocation that has ended
cannot be given a slot, a slot cannot be given back twice, an instance that drains never serves again. What
is asked of an instance that is doubted, and when, is in `doubts.py`.
"""

from typing import Final

from kappa_api.machine import Machine

# --- an instance ------------------------------------------------------------------------------------------------------
SERVING: Final = "serving"
RESTING: Final = "resting"
DOUBTED: Final = "doubted"
HUNG: Final = "hung"
DRAINING: Final = "draining"
GONE: Final = "gone"

SEEN: Final = "seen"
ANSWERED: Final = "answered"
REFUSED: Final = "refused"
RESTED: Final = "rested"
LATE: Final = "late"
HEARD: Final = "heard"
SILENT: Final = "silent"
DRAINED: Final = "told to drain"
REMOVED: Final = "removed"

#: What an event does where it says nothing new.
_SAME: Final = {state: state for state in (SERVING, RESTING, DOUBTED, HUNG, DRAINING, GONE)}

INSTANCE: Final = Machine(
    "instance",
    states={
        SERVING: "takes invocations while it has a free slot",
        RESTING: "could not take an invocation and is left alone until its back-off is over",
        DOUBTED: "was late, and is asked whether it lives; takes nothing until it has said so",
        HUNG: "has not said so; takes nothing, the operator is told, and it is asked again and again",
        DRAINING: "takes nothing more, ever; what is in service there ends",
        GONE: "its pod is gone; what was in service there ends by itself",
    },
    events={
        SEEN: "the watch shows its pod as serving, for the first time or again",
        ANSWERED: "an invocation has had its whole answer: the instance works",
        REFUSED: "it refused an invocation, could not be reached, or ended the connection",
        RESTED: "the back-off is over that began when it came to rest",
        LATE: "an invocation there had no answer by its deadline, or no connection to it was made in time",
        HEARD: "it has answered the question whether it lives: it was only slow",
        SILENT: "it has not answered that question in time",
        DRAINED: "its pod is labelled draining or being deleted, or it said so itself when it refused",
        REMOVED: "the watch shows its pod no more, or in a state in which it is no instance",
    },
    moves={
        SEEN: {SERVING: SERVING, RESTING: RESTING, DOUBTED: DOUBTED, HUNG: HUNG, DRAINING: DRAINING},
        ANSWERED: {**_SAME, RESTING: SERVING, DOUBTED: SERVING, HUNG: SERVING},
        REFUSED: {**_SAME, SERVING: RESTING},
        RESTED: {RESTING: SERVING},
        LATE: {**_SAME, SERVING: DOUBTED, RESTING: DOUBTED},
        HEARD: {**_SAME, DOUBTED: SERVING, HUNG: SERVING},
        SILENT: {**_SAME, DOUBTED: HUNG},
        DRAINED: {**_SAME, SERVING: DRAINING, RESTING: DRAINING, DOUBTED: DRAINING, HUNG: DRAINING},
        REMOVED: {SERVING: GONE, RESTING: GONE, DOUBTED: GONE, HUNG: GONE, DRAINING: GONE},
    },
)

# --- an invocation ----------------------------------------------------------------------------------------------------
NEW: Final = "new"
WAITING: Final = "waiting"
IN_SERVICE: Final = "in service"
OVER: Final = "over"

QUEUED: Final = "queued"
GRANTED: Final = "granted"
AGAIN: Final = "sent again"
RELEASED: Final = "released"
LEFT: Final = "left"

INVOCATION: Final = Machine(
    "invocation",
    states={
        NEW: "is being read; holds nothing",
        WAITING: "stands in its function's queue in the order of arrival, asynchronous work behind all callers",
        IN_SERVICE: "a slot of one instance is its own",
        OVER: "holds nothing, and never will again; its answer may still be on its way",
    },
    events={
        QUEUED: "it has been read, and takes its place behind everybody who waits, or behind all callers who do",
        GRANTED: "it gets a slot: nobody waits before it, and its deadline has not passed",
        AGAIN: "the attempt failed and may be repeated: the slot is free, it goes back to its old place",
        RELEASED: "the instance has answered, or failed it for good: the slot is free",
        LEFT: "its deadline has passed, its caller has left, or its function is gone: what it held is free",
    },
    moves={
        QUEUED: {NEW: WAITING},
        GRANTED: {WAITING: IN_SERVICE},
        AGAIN: {IN_SERVICE: WAITING},
        RELEASED: {IN_SERVICE: OVER},
        LEFT: {NEW: OVER, WAITING: OVER, IN_SERVICE: OVER, OVER: OVER},
    },
)
