"""Messages: inside a process, between processes, and in streams that outlive them."""

from aiopatterns.messaging.bus import BusStatistics, EventBus, HandlerFailed
from aiopatterns.messaging.envelope import Envelopes
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.subscriber import SubscriberStatistics
from aiopatterns.messaging.topics import TopicTrie
from aiopatterns.messaging.versioning import Form, Upcast, Upcasters

__all__ = [
    "BusStatistics",
    "Envelopes",
    "EventBus",
    "Form",
    "HandlerFailed",
    "Message",
    "SubscriberStatistics",
    "TopicTrie",
    "Upcast",
    "Upcasters",
]
