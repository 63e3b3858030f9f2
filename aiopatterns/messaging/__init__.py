"""Messages: inside a process, between processes, and in streams that outlive them."""

from aiopatterns.messaging.bus import BusStatistics, EventBus, HandlerFailed
from aiopatterns.messaging.envelope import Envelopes
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.subscriber import SubscriberStatistics
from aiopatterns.messaging.topics import TopicTrie

__all__ = [
    "BusStatistics",
    "Envelopes",
    "EventBus",
    "HandlerFailed",
    "Message",
    "SubscriberStatistics",
    "TopicTrie",
]
