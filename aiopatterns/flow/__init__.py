"""Data moving inside one process: channels, maps, pools, pipelines, graphs."""

from __future__ import annotations

from aiopatterns.flow.channel import AnyChannel, Channel, ChannelStatistics, Producer
from aiopatterns.flow.crew import MapStatistics
from aiopatterns.flow.mapping import StreamMap, amap, stream_map
from aiopatterns.flow.priority import PriorityChannel
from aiopatterns.flow.producer import ConsumerFailed, Report, produce_consume

__all__ = [
    "AnyChannel",
    "Channel",
    "ChannelStatistics",
    "ConsumerFailed",
    "MapStatistics",
    "PriorityChannel",
    "Producer",
    "Report",
    "StreamMap",
    "amap",
    "produce_consume",
    "stream_map",
]
