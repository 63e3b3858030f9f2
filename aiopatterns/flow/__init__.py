"""Data moving inside one process: channels, maps, pools, pipelines, graphs."""

from __future__ import annotations

from aiopatterns.flow.channel import AnyChannel, Channel, ChannelStatistics, Producer
from aiopatterns.flow.checkpoint import ResultStore
from aiopatterns.flow.crew import MapStatistics
from aiopatterns.flow.dag import Dag
from aiopatterns.flow.dagrun import DagRun
from aiopatterns.flow.executors import Executor, ExecutorStatistics, Inline, Processes, Threads
from aiopatterns.flow.gathering import Gathered, scatter_gather
from aiopatterns.flow.mapping import StreamMap, amap, stream_map
from aiopatterns.flow.mapreduce import map_reduce
from aiopatterns.flow.node import Span, TaskState
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.flow.priority import PriorityChannel
from aiopatterns.flow.producer import ConsumerFailed, Report, produce_consume
from aiopatterns.flow.run import PipelineRun
from aiopatterns.flow.stage import DeadItem, DeadLetter, ItemFailed, OnError
from aiopatterns.flow.tally import PipelineReport, StageStatistics
from aiopatterns.flow.task import Task

__all__ = [
    "AnyChannel",
    "Channel",
    "ChannelStatistics",
    "ConsumerFailed",
    "Dag",
    "DagRun",
    "DeadItem",
    "DeadLetter",
    "Executor",
    "ExecutorStatistics",
    "Gathered",
    "Inline",
    "ItemFailed",
    "MapStatistics",
    "OnError",
    "Pipeline",
    "PipelineReport",
    "PipelineRun",
    "PriorityChannel",
    "Processes",
    "Producer",
    "Report",
    "ResultStore",
    "Span",
    "StageStatistics",
    "StreamMap",
    "Task",
    "TaskState",
    "Threads",
    "amap",
    "map_reduce",
    "produce_consume",
    "scatter_gather",
    "stream_map",
]
