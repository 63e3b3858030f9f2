"""Messages: inside a process, between processes, and in streams that outlive them."""

from aiopatterns.messaging.envelope import Envelopes
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.topics import TopicTrie

__all__ = ["Envelopes", "Message", "TopicTrie"]
