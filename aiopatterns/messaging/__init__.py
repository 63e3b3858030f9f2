"""Messages: inside a process, between processes, and in streams that outlive them."""

from aiopatterns.messaging.apidocument import asyncapi
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
from aiopatterns.messaging.consumer import ConsumerStatistics, StreamConsumer
from aiopatterns.messaging.context import Context
from aiopatterns.messaging.delivery import Delivery
from aiopatterns.messaging.endpoint import HandlerStatistics
from aiopatterns.messaging.envelope import Envelopes
from aiopatterns.messaging.hosting import run_services
from aiopatterns.messaging.inbox import Inbox
from aiopatterns.messaging.intake import SubscriptionStatistics
from aiopatterns.messaging.letters import DeadLetter
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.outbox import Backlog, Outbox, OutboxRefused
from aiopatterns.messaging.service import Service
from aiopatterns.messaging.serviceevents import (
    ServiceDraining,
    ServiceStarted,
    ServiceStopped,
    ServiceTimerFailed,
)
from aiopatterns.messaging.servicerecords import ServiceHealth, ServiceState, ServiceStatistics
from aiopatterns.messaging.servicerun import ServiceRun
from aiopatterns.messaging.stream import Stream, StreamStatistics
from aiopatterns.messaging.streamevents import (
    StreamDeadLettered,
    StreamDeliveryLost,
    StreamHandlerFailed,
    StreamInterrupted,
    StreamResumed,
)
from aiopatterns.messaging.subscriber import SubscriberStatistics
from aiopatterns.messaging.tags import command, event, every, query
from aiopatterns.messaging.topics import TopicTrie
from aiopatterns.messaging.versioning import Form, Upcast, Upcasters

__all__ = [
    "Backlog",
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
    "ConsumerStatistics",
    "Context",
    "DeadLetter",
    "Delivery",
    "Envelopes",
    "EventBus",
    "Form",
    "HandlerFailed",
    "HandlerStatistics",
    "Inbox",
    "Message",
    "Outbox",
    "OutboxRefused",
    "Service",
    "ServiceDraining",
    "ServiceHealth",
    "ServiceRun",
    "ServiceStarted",
    "ServiceState",
    "ServiceStatistics",
    "ServiceStopped",
    "ServiceTimerFailed",
    "Stream",
    "StreamConsumer",
    "StreamDeadLettered",
    "StreamDeliveryLost",
    "StreamHandlerFailed",
    "StreamInterrupted",
    "StreamResumed",
    "StreamStatistics",
    "SubscriberStatistics",
    "SubscriptionStatistics",
    "TopicTrie",
    "Upcast",
    "Upcasters",
    "asyncapi",
    "command",
    "event",
    "every",
    "query",
    "run_services",
]
