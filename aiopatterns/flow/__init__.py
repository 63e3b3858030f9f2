"""Data moving inside one process: channels, maps, pools, pipelines, graphs."""

from __future__ import annotations

from aiopatterns.flow.autoscale import Autoscale, Load
from aiopatterns.flow.channel import AnyChannel, Channel, ChannelStatistics, Producer
from aiopatterns.flow.checkpoint import KvStore, ResultStore
from aiopatterns.flow.crew import MapStatistics
from aiopatterns.flow.dag import Dag
from aiopatterns.flow.dagrun import DagRun
from aiopatterns.flow.executors import Executor, ExecutorStatistics, Inline, Processes, Threads
from aiopatterns.flow.gathering import Gathered, scatter_gather
from aiopatterns.flow.handle import Handle, HandleStatus
from aiopatterns.flow.ledger import PoolStatistics, WorkerStatistics
from aiopatterns.flow.mapping import StreamMap, amap, stream_map
from aiopatterns.flow.mapreduce import map_reduce
from aiopatterns.flow.node import Span, TaskState
from aiopatterns.flow.outcomes import OutcomeStream
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.flow.pool import WorkerPool
from aiopatterns.flow.priority import PriorityChannel
from aiopatterns.flow.producer import ConsumerFailed, Report, produce_consume
from aiopatterns.flow.run import PipelineRun
from aiopatterns.flow.shift import PoolItemFailed
from aiopatterns.flow.staff import PoolScaled, PoolWorkerFailed
from aiopatterns.flow.stage import DeadItem, DeadLetter, ItemFailed, OnError
from aiopatterns.flow.tally import PipelineReport, StageStatistics
from aiopatterns.flow.task import Task

__all__ = [
    "AnyChannel",
    "Autoscale",
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
    "Handle",
    "HandleStatus",
    "Inline",
    "ItemFailed",
    "KvStore",
    "Load",
    "MapStatistics",
    "OnError",
    "OutcomeStream",
    "Pipeline",
    "PipelineReport",
    "PipelineRun",
    "PoolItemFailed",
    "PoolScaled",
    "PoolStatistics",
    "PoolWorkerFailed",
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
    "WorkerPool",
    "WorkerStatistics",
    "amap",
    "map_reduce",
    "produce_consume",
    "scatter_gather",
    "stream_map",
]
