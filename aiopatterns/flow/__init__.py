"""Data moving inside one process: channels, maps, pools, pipelines, graphs."""

from __future__ import annotations

from aiopatterns.flow.channel import AnyChannel, Channel, ChannelStatistics, Producer
from aiopatterns.flow.crew import MapStatistics
from aiopatterns.flow.mapping import StreamMap, amap, stream_map
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.flow.priority import PriorityChannel
from aiopatterns.flow.producer import ConsumerFailed, Report, produce_consume
from aiopatterns.flow.run import PipelineRun
from aiopatterns.flow.stage import DeadItem, DeadLetter, ItemFailed, OnError
from aiopatterns.flow.tally import PipelineReport, StageStatistics

__all__ = [
    "AnyChannel",
    "Channel",
    "ChannelStatistics",
    "ConsumerFailed",
    "DeadItem",
    "DeadLetter",
    "ItemFailed",
    "MapStatistics",
    "OnError",
    "Pipeline",
    "PipelineReport",
    "PipelineRun",
    "PriorityChannel",
    "Producer",
    "Report",
    "StageStatistics",
    "StreamMap",
    "amap",
    "produce_consume",
    "stream_map",
]
