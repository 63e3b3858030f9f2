"""Messages: inside a process, between processes, and in streams that outlive them."""

from aiopatterns.messaging.broker import Broker, BrokerStatistics, BrokerSubscription
from aiopatterns.messaging.brokerevents import (
    BrokerFrameRefused,
    BrokerHandlerFailed,
    BrokerInterrupted,
    BrokerMessagesDropped,
    BrokerResumed,
    BrokerSubscriptionFailed,
)
from aiopatterns.messaging.bus import BusStatistics, EventBus, HandlerFailed
from aiopatterns.messaging.envelope import Envelopes
from aiopatterns.messaging.intake import SubscriptionStatistics
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.subscriber import SubscriberStatistics
from aiopatterns.messaging.topics import TopicTrie
from aiopatterns.messaging.versioning import Form, Upcast, Upcasters

__all__ = [
    "Broker",
    "BrokerFrameRefused",
    "BrokerHandlerFailed",
    "BrokerInterrupted",
    "BrokerMessagesDropped",
    "BrokerResumed",
    "BrokerStatistics",
    "BrokerSubscription",
    "BrokerSubscriptionFailed",
    "BusStatistics",
    "Envelopes",
    "EventBus",
    "Form",
    "HandlerFailed",
    "Message",
    "SubscriberStatistics",
    "SubscriptionStatistics",
    "TopicTrie",
    "Upcast",
    "Upcasters",
]
