"""Who is alive, where, and whom to ask."""

from aiopatterns.cluster.detector import FailureDetector, PhiAccrual
from aiopatterns.cluster.health import HealthChecker, HealthStatistics
from aiopatterns.cluster.healthcheck import Check, HealthKind
from aiopatterns.cluster.healthevents import HealthChanged, HealthCheckFailed, HealthLoopRestarted
from aiopatterns.cluster.healthreport import CheckHealth, HealthReport
from aiopatterns.cluster.heartbeat import DetectorStatistics, Heartbeats
from aiopatterns.cluster.hysteresis import HealthState
from aiopatterns.cluster.instance import InstanceState, ServiceInstance
from aiopatterns.cluster.member import Member, MemberState
from aiopatterns.cluster.peer import PeerNode, PeerStatistics
from aiopatterns.cluster.peerevents import (
    PeerChanged,
    PeerHandlerFailed,
    PeerJoined,
    PeerJoinFailed,
    PeerRejected,
    PeerStalled,
)
from aiopatterns.cluster.registration import Registration, RegistrationStatistics
from aiopatterns.cluster.registry import RegistryStatistics, ServiceRegistry
from aiopatterns.cluster.snapshot import Snapshot
from aiopatterns.cluster.swim import Swim
from aiopatterns.cluster.transport import MemoryNetwork, MemoryTransport, Transport

__all__ = [
    "Check",
    "CheckHealth",
    "DetectorStatistics",
    "FailureDetector",
    "HealthChanged",
    "HealthCheckFailed",
    "HealthChecker",
    "HealthKind",
    "HealthLoopRestarted",
    "HealthReport",
    "HealthState",
    "HealthStatistics",
    "Heartbeats",
    "InstanceState",
    "Member",
    "MemberState",
    "MemoryNetwork",
    "MemoryTransport",
    "PeerChanged",
    "PeerHandlerFailed",
    "PeerJoinFailed",
    "PeerJoined",
    "PeerNode",
    "PeerRejected",
    "PeerStalled",
    "PeerStatistics",
    "PhiAccrual",
    "Registration",
    "RegistrationStatistics",
    "RegistryStatistics",
    "ServiceInstance",
    "ServiceRegistry",
    "Snapshot",
    "Swim",
    "Transport",
]
