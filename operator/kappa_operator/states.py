"""The operator's state machines: a pod's life, and a claim's.

A pod's state is its label, so that it survives every operator; each patch of the label is a move of the table and tests
the old state (`pods.py`), so that of two leaders one succeeds. A claim lives in one leader's memory (`claiming.py`).
"""

from typing import Final

from kappa_api import names
from kappa_api.machine import Machine

# --- a pod ------------------------------------------------------------------------------------------------------------
ABSENT: Final = "absent"
POOL: Final = names.STATE_POOL
STARTING: Final = names.STATE_STARTING
SERVING: Final = names.STATE_SERVING
DRAINING: Final = names.STATE_DRAINING
GONE: Final = "gone"

POOLED: Final = "made for a pool"
MADE: Final = "made for a function"
CLAIMED: Final = "claimed to prove"
TAKEN: Final = "claimed proven"
LOADED: Final = "loaded"
DRAINED: Final = "drained"
DELETED: Final = "deleted"

POD: Final = Machine(
    "pod",
    states={
        ABSENT: "has not been made yet",
        POOL: "its runtime is up, or will be; it holds no code and belongs to no function",
        STARTING: "belongs to one function for ever, and has not loaded yet: gateways ignore it",
        SERVING: "gateways may choose it",
        DRAINING: "gateways must not choose it any more; it finishes what it has",
        GONE: "is deleted, or being deleted",
    },
    events={
        POOLED: "its pool is smaller than it should be",
        MADE: "a function needs an instance and the pool cannot serve",
        CLAIMED: "a function takes it for a revision that is not proven, or before it is Ready",
        TAKEN: "a function takes it for a proven revision; the code is sent at the same time",
        LOADED: "its code has loaded; an image is Ready",
        DRAINED: "it is one too many, replaced, or sick; said again, the next leader goes on with it",
        DELETED: "it has drained, ended, failed to load, or is of no use",
    },
    moves={
        POOLED: {ABSENT: POOL},
        MADE: {ABSENT: STARTING},
        CLAIMED: {POOL: STARTING},
        TAKEN: {POOL: SERVING},
        LOADED: {STARTING: SERVING},
        DRAINED: {SERVING: DRAINING, DRAINING: DRAINING},
        DELETED: {POOL: GONE, STARTING: GONE, SERVING: GONE, DRAINING: GONE, GONE: GONE},
    },
)

# --- a claim ----------------------------------------------------------------------------------------------------------
LOOKING: Final = "looking"
RESERVED: Final = "reserved"
LABELLED: Final = "labelled"
OVER: Final = "over"

RESERVE: Final = "reserves a pod"
LABEL: Final = "labels it"
FAIL: Final = "cannot use it"
END: Final = "ends"

CLAIM: Final = Machine(
    "claim",
    states={
        LOOKING: "has no pod; the plan counts the claim",
        RESERVED: "a pod of the pool is its own, for this operator; the plan still counts the claim",
        LABELLED: "the pod carries the function's label; the plan counts the pod instead",
        OVER: "has given back what it had reserved; the plan counts the pod, if there is one",
    },
    events={
        RESERVE: "the pool has a pod to spare",
        LABEL: "the API server has taken the label: the pod is the function's, whoever leads",
        FAIL: "the pod cannot be reached or holds other code: it is deleted, and another one is tried",
        END: "it has an instance, made a pod, failed, was cancelled, or another leader was faster",
    },
    moves={
        RESERVE: {LOOKING: RESERVED},
        LABEL: {RESERVED: LABELLED},
        FAIL: {RESERVED: LOOKING, LABELLED: LOOKING},
        END: {LOOKING: OVER, RESERVED: OVER, LABELLED: OVER, OVER: OVER},
    },
)
