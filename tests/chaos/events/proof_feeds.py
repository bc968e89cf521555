"""The feeds by the names of their sources. Schedules are no feed: nobody hands them in (`proof_schedules.py`)."""

from collections.abc import Callable
from typing import Final

from proof_feed import Feed, Ground
from proof_feeds_data import KubernetesFeed, MqttFeed, PostgresFeed, RedisFeed
from proof_feeds_http import AsyncFeed, EventFeed, S3Feed, WebhookFeed
from proof_feeds_nats import KvFeed, ObjectFeed, StreamFeed, SubjectFeed

_ALL: Final = (
    *(AsyncFeed, SubjectFeed, StreamFeed, MqttFeed, S3Feed, PostgresFeed),
    *(RedisFeed, WebhookFeed, KubernetesFeed, KvFeed, ObjectFeed, EventFeed),
)
FEEDS: Final[dict[str, Callable[[Ground], Feed]]] = {feed.name: feed for feed in _ALL}
