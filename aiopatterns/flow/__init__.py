"""Data moving inside one process: channels, maps, pools, pipelines, graphs."""

from __future__ import annotations

from aiopatterns.flow.channel import Channel, ChannelStatistics, PriorityChannel, Producer

__all__ = ["Channel", "ChannelStatistics", "PriorityChannel", "Producer"]
