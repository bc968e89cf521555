"""The states of a pod, as a table."""

import pytest

from kappa_api.wire import Health
from kappa_runtime.context import FunctionInfo
from kappa_runtime.instance import Instance

INFO = FunctionInfo("default", "hello", "rev1")


def after(*steps):
    instance = Instance()
    for step in steps:
        {
            "loading": lambda: instance.loading(INFO, 2),
            "loaded": instance.loaded,
            "failed": instance.failed,
            "drain": instance.drain,
            "admit": instance.admit,
        }[step]()
    return instance


@pytest.mark.parametrize(
    ("steps", "state", "admits", "may_specialize"),
    [
        ((), "empty", "empty", True),
        (("loading",), "loading", "wait", False),
        (("loading", "loaded"), "serving", "", False),
        (("loading", "loaded", "admit"), "serving", "", False),
        (("loading", "loaded", "admit", "admit"), "serving", "busy", False),
        (("loading", "failed"), "empty", "empty", False),
        (("drain",), "draining", "draining", False),
        (("loading", "drain"), "draining", "draining", False),
        (("loading", "drain", "loaded"), "draining", "draining", False),
        (("loading", "drain", "failed"), "draining", "draining", False),
        (("loading", "loaded", "drain"), "draining", "draining", False),
    ],
)
def test_states(steps, state, admits, may_specialize):
    instance = after(*steps)
    assert (instance.state, instance.may_specialize(), instance.admit()) == (state, may_specialize, admits)


@pytest.mark.parametrize(
    ("steps", "function", "is_for"),
    [
        ((), b"default/hello", True),  # `admit` refuses it: empty
        (("loading",), b"default/hello", True),
        (("loading",), b"default/hell", False),
        (("loading", "loaded"), b"default/hello", True),
        (("loading", "loaded"), b"", True),  # not a gateway's
        (("loading", "loaded"), b"default/hello2", False),
        (("loading", "loaded"), b"other/hello", False),
        (("loading", "loaded"), b"Default/hello", False),
        (("loading", "loaded", "drain"), b"other/hello", False),
        (("loading", "failed"), b"other/hello", True),
    ],
)
def test_whose_invocations_may_come(steps, function, is_for):
    assert after(*steps).is_for(function) is is_for


def test_health_and_repr():
    instance = after("loading", "loaded", "admit")
    instance.after = 1
    assert instance.health() == Health("serving", "default/hello", "rev1", 2)
    assert repr(instance) == "<Instance serving default/hello@rev1 1/2 +1>"
    assert after("loading", "failed").health() == Health("empty")
