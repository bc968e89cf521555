"""Amazon SNS as a messenger: what it wraps around a message, and who it says it is. Pure.

SNS proves itself as a URL's user and password tell it to (`https://kappa:TOKEN@host/...`), once it has been asked with
a Basic challenge. Its signatures need a certificate from an address in the message; nothing is fetched here, and so a
subscription is confirmed by whoever looks after the topic: the Trigger's message has the address. Sources: "Fanout
Amazon SNS notifications to HTTPS endpoints" and "Parsing message formats" in the Amazon SNS developer guide; RFC 7617.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kappa_gateway.events.sources import webhook_replies as replies
from kappa_gateway.events.sources import webhook_signatures as signatures

Json = Any
#: SNS answers to this, and to nothing less: the realm must be there.
CHALLENGE: Final = 'Basic realm="kappa"'
_TYPE_HEADER: Final = "x-amz-sns-message-type"
_CONFIRMATION, _FAREWELL = "SubscriptionConfirmation", "UnsubscribeConfirmation"
_ARN: Final = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]{1,40}:[0-9]{1,20}:[A-Za-z0-9._-]{1,256}")
#: Nobody is to be sent anywhere else, whatever a message says.
_URL: Final = re.compile(r"https://sns\.[a-z0-9-]{1,40}\.amazonaws\.com(\.cn)?/\?[\x21-\x7e]{1,1000}")


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """`body`: what was wrapped; None: nothing but `notice`, which is for whoever looks after the Trigger."""

    body: Json = None
    notice: str = ""


def is_sender(headers: Mapping[str, str]) -> bool:
    """Whether a request says that it comes from SNS."""
    return _TYPE_HEADER in headers


def opens(header: str, tokens: Iterable[bytes]) -> bool:
    """Whether an Authorization header carries one of the tokens as its password; the user's name is anything."""
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        _, colon, password = base64.b64decode(rest.strip(), validate=True).partition(b":")
    except ValueError:
        return False
    return bool(colon) and signatures.same(password, tokens)


def unwrap(body: Json) -> Unwrapped | None:
    """None: it is no envelope of SNS. Raises BodyError for one that holds nothing that could be understood."""
    if not isinstance(body, Mapping) or not isinstance(body.get("TopicArn"), str):
        return None
    kind = body.get("Type")
    if kind == "Notification":
        return Unwrapped(_message(body.get("Message")))
    if kind not in (_CONFIRMATION, _FAREWELL):
        return None
    topic = body["TopicArn"] if _ARN.fullmatch(body["TopicArn"]) else "with a strange name"
    url = body.get("SubscribeURL")
    place = url if isinstance(url, str) and _URL.fullmatch(url) else "(not shown: it is not Amazon's)"
    if kind == _CONFIRMATION:
        return Unwrapped(notice=f"the SNS topic {topic} waits for its subscription to be confirmed: open {place}")
    return Unwrapped(notice=f"the subscription to the SNS topic {topic} was ended; to have it again, open {place}")


def _message(text: Json) -> Json:
    try:
        return replies.parse_json(text.encode() if isinstance(text, str) else b"")
    except replies.BodyError as error:
        raise replies.BodyError("the Message of the SNS notification is not JSON") from error
