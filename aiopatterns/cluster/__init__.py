"""Who is alive, where, and whom to ask."""

from aiopatterns.cluster.balancer import LoadBalancer
from aiopatterns.cluster.book import LapseBelieved, LapseDoubted
from aiopatterns.cluster.chance import Random
from aiopatterns.cluster.client import ServiceClient
from aiopatterns.cluster.consistent import ConsistentHash
from aiopatterns.cluster.contact import RegistryInterrupted, RegistryResumed
from aiopatterns.cluster.detector import FailureDetector, PhiAccrual
from aiopatterns.cluster.ejection import Ejection
from aiopatterns.cluster.endpoint import Endpoint, EndpointStatistics, Traffic
from aiopatterns.cluster.feed import ServiceWatch
from aiopatterns.cluster.health import HealthChecker, HealthStatistics
from aiopatterns.cluster.healthcheck import Check, HealthKind
from aiopatterns.cluster.healthevents import HealthChanged, HealthCheckFailed, HealthLoopRestarted
from aiopatterns.cluster.healthreport import CheckHealth, HealthReport
from aiopatterns.cluster.heartbeat import DetectorStatistics, Heartbeats
from aiopatterns.cluster.hysteresis import HealthState
from aiopatterns.cluster.instance import InstanceState, ServiceInstance
from aiopatterns.cluster.leastloaded import LeastLoaded
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
from aiopatterns.cluster.pick import Pick
from aiopatterns.cluster.pool import (
    BalancerStatistics,
    EndpointEjected,
    EndpointRestored,
    EndpointSkipped,
    PoolPanicked,
)
from aiopatterns.cluster.poweroftwo import PowerOfTwo
from aiopatterns.cluster.registration import (
    Registration,
    RegistrationRestored,
    RegistrationStatistics,
    RegistrationSuperseded,
)
from aiopatterns.cluster.registry import RegistryStatistics, ServiceRegistry
from aiopatterns.cluster.roundrobin import RoundRobin, WeightedRoundRobin
from aiopatterns.cluster.secret import Secret
from aiopatterns.cluster.snapshot import Snapshot
from aiopatterns.cluster.strategy import Picker, Strategy
from aiopatterns.cluster.swim import Swim
from aiopatterns.cluster.tcp import TCPStatistics, TCPTransport
from aiopatterns.cluster.tcpcounts import PeerSecretMismatch
from aiopatterns.cluster.tcpdoor import PeerAcceptFailed
from aiopatterns.cluster.transport import MemoryNetwork, MemoryTransport, Transport

__all__ = [
    "BalancerStatistics",
    "Check",
    "CheckHealth",
    "ConsistentHash",
    "DetectorStatistics",
    "Ejection",
    "Endpoint",
    "EndpointEjected",
    "EndpointRestored",
    "EndpointSkipped",
    "EndpointStatistics",
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
    "LapseBelieved",
    "LapseDoubted",
    "LeastLoaded",
    "LoadBalancer",
    "Member",
    "MemberState",
    "MemoryNetwork",
    "MemoryTransport",
    "PeerAcceptFailed",
    "PeerChanged",
    "PeerHandlerFailed",
    "PeerJoinFailed",
    "PeerJoined",
    "PeerNode",
    "PeerRejected",
    "PeerSecretMismatch",
    "PeerStalled",
    "PeerStatistics",
    "PhiAccrual",
    "Pick",
    "Picker",
    "PoolPanicked",
    "PowerOfTwo",
    "Random",
    "Registration",
    "RegistrationRestored",
    "RegistrationStatistics",
    "RegistrationSuperseded",
    "RegistryInterrupted",
    "RegistryResumed",
    "RegistryStatistics",
    "RoundRobin",
    "Secret",
    "ServiceClient",
    "ServiceInstance",
    "ServiceRegistry",
    "ServiceWatch",
    "Snapshot",
    "Strategy",
    "Swim",
    "TCPStatistics",
    "TCPTransport",
    "Traffic",
    "Transport",
    "WeightedRoundRobin",
]
