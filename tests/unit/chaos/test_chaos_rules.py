"""The harness must be able to fail: what it calls lost, broken or late is told from what is not."""

import json
from dataclasses import replace
from typing import Any

import pytest
from chaos_answer import Answer, judge, judge_close
from chaos_load import Record
from chaos_plan import PLAN, chosen
from chaos_rules import Span, assess, explain

GATEWAY = {"kappa-error-source": "gateway"}
ERROR = json.dumps({"error": {"code": "instance_died", "message": "m", "requestId": "r1"}}).encode()


def answer(status: int, body: bytes = b"", headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    return Answer(status, headers or {}, body, **{"complete": True, "begun": True, **fields})


@pytest.mark.parametrize(
    ("found", "problem", "verdict"),
    [
        (answer(200), "", "ok"),
        (answer(200), "of another request", "lost"),
        (answer(502, ERROR, GATEWAY), "", "attributed"),
        (answer(502, b'{"error": {"code": "x", "message": "m", "requestId": ""}}', GATEWAY), "", "lost"),
        (answer(502, b"<html>", GATEWAY), "", "lost"),
        (answer(500, b"{}", {"kappa-error-source": "function", "kappa-error": "KeyError"}), "", "attributed"),
        (answer(503, ERROR), "", "lost"),
        (answer(200, b"half", complete=False, trouble="closed"), "", "cut"),
        (answer(0, complete=False, trouble="reset"), "", "cut"),
        (Answer(trouble="reset"), "", "lost"),
    ],
)
def test_answers(found: Answer, problem: str, verdict: str) -> None:
    assert judge(found, problem).verdict == verdict


@pytest.mark.parametrize(("code", "verdict"), [(1014, "attributed"), (1001, "attributed"), (0, "cut"), (1002, "cut")])
def test_closed_websockets(code: int, verdict: str) -> None:
    assert judge_close(code, "g:1").verdict == verdict


def record(at: float, verdict: str = "ok", slow: float = 0.01, **fields: Any) -> Record:
    base = Record("post", at - slow, at, slow, verdict, "why", False, "g:1", "r1", 0, "1")
    return replace(base, **fields)


SPAN = Span("event", True, calm=0.0, begun=10.0, lifted=20.0, end=35.0)
HARD = replace(SPAN, graceful=False)
HUNG = replace(HARD, hangs=True)


def steady(slow: float = 0.01) -> list[Record]:
    """Twenty calls a second for the whole time."""
    return [record(number / 20, slow=slow) for number in range(700)]


def problems(span: Span, *more: Record, records: list[Record] | None = None) -> list[str]:
    return assess(span, [*(records or steady()), *more]).problems


def test_a_quiet_event_has_no_problem() -> None:
    row = assess(SPAN, steady())
    assert (row.problems, row.requests, row.failed, row.recovered) == ([], 500, 0, 0.0)


def test_nothing_may_fail_gracefully() -> None:
    assert problems(SPAN, record(15, "attributed")) == ["1 failed in a transition in which none may"]
    assert problems(HARD, record(15, "attributed")) == []


def test_what_could_be_repeated_may_never_fail() -> None:
    assert problems(HARD, record(15, "attributed", repeatable=True)) == ["1 failed that could have been repeated"]


def test_what_hung_until_its_deadline_could_not_be_repeated() -> None:
    late = record(15, "attributed", why="504 deadline: the function did not answer", repeatable=True)
    assert problems(HUNG, late) == []
    assert problems(HARD, late) == ["1 failed that could have been repeated"]
    other = replace(late, why="502 instance_died: the instance ended the connection")
    assert problems(HUNG, other) == ["1 failed that could have been repeated"]
    assert problems(HUNG, replace(late, verdict="lost")) == [
        "1 lost without attribution",
        "1 failed that could have been repeated",
    ]


def test_lost_is_never_allowed() -> None:
    assert problems(HARD, record(15, "lost")) == ["1 lost without attribution"]


def test_what_was_cut_needs_an_explanation() -> None:
    cut = [record(15, "cut"), record(16, "cut", request_id="r2"), record(17, "cut", request_id="r3", endpoint="g:2")]
    explain(cut, [replace(HARD, killed_gateways=frozenset({"g:2"}))], {"r1"})
    assert [bool(one.explained) for one in cut] == [True, False, True]
    row = assess(HARD, [*steady(), *cut])
    assert (row.attributed, row.lost) == (2, 1)


def test_a_killed_gateway_explains_silence_but_not_a_wrong_answer_nor_another_time() -> None:
    span = replace(HARD, killed_gateways=frozenset({"g:1"}))
    found = [record(15, "lost", why="no answer: reset"), record(15, "lost", why="wrong answer: x")]
    found.append(record(5, "lost", why="no answer: reset"))
    explain(found, [span], set())
    assert [one.verdict for one in found] == ["cut", "lost", "lost"]


def slowly(begun: float, ended: float, slow: float = 1.0) -> list[Record]:
    return [replace(one, slow=slow) if begun <= one.ended < ended else one for one in steady()]


def test_latency_must_come_back() -> None:
    assert assess(SPAN, slowly(12, 24)).recovered == pytest.approx(4.0)
    assert problems(SPAN, records=slowly(12, 24)) == []
    assert problems(SPAN, records=slowly(12, 31.5)) == ["p99 not back within 10 s"]
    assert problems(SPAN, records=slowly(12, 99)) == ["p99 not back within 10 s"]
    silent = [one for one in steady() if one.ended < 20]
    assert "p99 not back within 10 s" in problems(SPAN, records=silent)


def test_some_events_must_not_even_be_felt() -> None:
    (problem,) = problems(replace(SPAN, steady=True), records=slowly(12, 14))
    assert problem == "p99 1000 ms while it lasted, 10 ms before"


def test_the_table_of_events_can_be_chosen_from() -> None:
    assert [event.name for event in chosen(["api", "cycles"], quick=False, can=lambda what: True)] == ["cycles", "api"]
    assert len(chosen([], quick=False, can=lambda what: True)) == len(PLAN)
    assert all(event.quick for event in chosen([], quick=True, can=lambda what: True))
    assert not [event for event in chosen([], quick=False, can=lambda what: False) if event.needs]
    with pytest.raises(ValueError, match="no event nonsense; there are: api, "):
        chosen(["nonsense"], quick=False, can=lambda what: True)
