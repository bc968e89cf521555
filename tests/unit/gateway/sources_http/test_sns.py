"""Bucket notifications that come through SNS: its envelopes, who it is, and what is never shown or followed."""

import base64
import json
from typing import Any

import pytest

from kappa_api.sources.s3 import S3
from kappa_api.trigger import Trigger
from kappa_gateway.events.source import Inbound, Reply
from kappa_gateway.events.sources import s3, sns

TOPIC = "arn:aws:sns:eu-central-1:123456789012:photos"
URL = f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37fb687f5d51e6e2"
#: As the user guide of S3 has it.
PUT = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "awsRegion": "eu-central-1",
    "eventTime": "2026-01-02T03:04:05.678Z",
    "eventName": "ObjectCreated:Put",
    "userIdentity": {"principalId": "AWS:AIDAEXAMPLE"},
    "requestParameters": {"sourceIPAddress": "192.0.2.7"},
    "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG"},
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "to-sns",
        "bucket": {"name": "photos", "ownerIdentity": {"principalId": "A3"}, "arn": "arn:aws:s3:::photos"},
        "object": {"key": "a+b.jpg", "size": 1024, "eTag": "d41d8cd98f00b204", "sequencer": "0055AED6DCD90281E5"},
    },
}


def envelope(kind: str = "Notification", message: Any = None, **more: Any) -> dict[str, Any]:
    text = message if isinstance(message, str) else json.dumps(message or {"Records": [PUT]})
    found = {
        "Type": kind,
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Subject": "Amazon S3 Notification",
        "Message": text,
        "Timestamp": "2026-01-02T03:04:06.000Z",
        "SignatureVersion": "1",
        "Signature": "EXAMPLEw6JRN...",
        "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-f3ecfb7224c7233fe7bb5f59.pem",
        "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn=x",
    }
    return found | more


def confirmation(**more: Any) -> dict[str, Any]:
    text = f"You have chosen to subscribe to the topic {TOPIC}.\nTo confirm the subscription, visit the SubscribeURL."
    return envelope("SubscriptionConfirmation", text, Token="2336412f37fb687f5d51e6e2", SubscribeURL=URL, **more)


def basic(password: str, user: str = "kappa") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def post(body: Any, authorization: str = basic("t:1"), kind: str = "Notification", **more: Any) -> Reply:
    trigger = Trigger("default", "photos", "uid", 1, "f", "s3", S3("s"))
    headers = {"x-amz-sns-message-type": kind, "content-type": "text/plain; charset=UTF-8"}
    headers |= {"authorization": authorization} if authorization else {}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    inbound = Inbound("POST", "", "", headers | more, raw, 0.0)
    return s3.receive(trigger, inbound, lambda name: {"t": b"t:1\n", "old": b"o"} if name == "s" else None)


def test_what_is_wrapped_is_as_if_it_were_not() -> None:
    reply = post(envelope())
    bare = post({"Records": [PUT]})
    assert (reply.status, reply.notice, bare.notice) == (200, "", None)
    assert reply.events == bare.events
    assert (reply.events[0].subject, reply.events[0].data) == ("a b.jpg", PUT)
    raw = {"x-amz-sns-rawdelivery": "true"}
    assert post({"Records": [PUT]}, **raw).events == bare.events


def test_the_test_message_is_no_event() -> None:
    reply = post(envelope(message={"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"}))
    assert (reply.status, reply.events) == (200, ())


def test_a_subscription_is_told_of_and_not_confirmed() -> None:
    reply = post(confirmation(), kind="SubscriptionConfirmation")
    assert (reply.status, reply.events) == (200, ())
    assert reply.notice == f"the SNS topic {TOPIC} waits for its subscription to be confirmed: open {URL}"
    assert URL.encode() not in reply.body
    ended = post(envelope("UnsubscribeConfirmation", "You have chosen to deactivate", SubscribeURL=URL))
    assert ended.notice is not None
    assert ended.notice.endswith(f"was ended; to have it again, open {URL}")


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription",
        "https://sns.eu-central-1.amazonaws.com.example.org/?Action=ConfirmSubscription",
        "https://example.org/?sns.eu-central-1.amazonaws.com",
        "https://sns.eu-central-1.amazonaws.com@example.org/?x",
        "https://user@sns.eu-central-1.amazonaws.com/?x",
        "https://sns.eu-central-1.amazonaws.com/?a b",
        "https://sns.eu-central-1.amazonaws.com/?" + "a" * 2000,
        "https://sns.eu-central-1.amazonaws.com/?a\n",
        None,
        ["https://sns.eu-central-1.amazonaws.com/?a"],
    ],
)
def test_nobody_is_sent_elsewhere(url: Any) -> None:
    notice = post(confirmation() | {"SubscribeURL": url, "TopicArn": "arn:x\nReady"}).notice
    asks = "the SNS topic with a strange name waits for its subscription to be confirmed"
    assert notice == f"{asks}: open (not shown: it is not Amazon's)"


def test_sns_is_asked_who_it_is() -> None:
    for authorization in ("", basic("u"), basic("o", "t"), "Basic !", "Basic", "Digest x", basic("t:")):
        expected = (401, (), sns.CHALLENGE, None) if authorization != basic("o", "t") else (200, (), "", None)
        reply = post(envelope(message={"Records": []}), authorization)
        found = (reply.status, reply.events, reply.challenge, reply.notice or None)
        assert found == expected, authorization
    trigger = Trigger("default", "photos", "uid", 1, "f", "s3", S3("s"))
    others = s3.receive(trigger, Inbound("POST", "", "", {}, b"{}", 0.0), lambda name: {"t": b"t"})
    assert (others.status, others.challenge) == (401, "")
    assert post(envelope(), "Bearer t:1").status == 200


@pytest.mark.parametrize("message", ["Hello", "", "[1", "{}", '{"Records": [1]}'])
def test_what_is_no_notification_inside_is_refused(message: str) -> None:
    reply = post(envelope(message=message) | {"Message": message})
    assert (reply.status, reply.events) == (400, ())


@pytest.mark.parametrize("change", [{"Type": "Other"}, {"TopicArn": 7}, {"Type": None}])
def test_what_is_no_envelope_is_no_envelope(change: Any) -> None:
    assert sns.unwrap(envelope() | change) is None
    assert post(envelope() | change).status == 400
