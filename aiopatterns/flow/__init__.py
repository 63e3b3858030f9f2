"""Data moving inside one process: channels, maps, pools, pipelines, graphs."""

from __future__ import annotations

from aiopatterns.flow.channel import AnyChannel, Channel, ChannelStatistics, Producer
from aiopatterns.flow.priority import PriorityChannel

__all__ = ["AnyChannel", "Channel", "ChannelStatistics", "PriorityChannel", "Producer"]
