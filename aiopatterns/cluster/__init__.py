"""Who is alive, where, and whom to ask."""

from aiopatterns.cluster.instance import InstanceState, ServiceInstance
from aiopatterns.cluster.registration import Registration, RegistrationStatistics
from aiopatterns.cluster.registry import RegistryStatistics, ServiceRegistry
from aiopatterns.cluster.snapshot import Snapshot

__all__ = [
    "InstanceState",
    "Registration",
    "RegistrationStatistics",
    "RegistryStatistics",
    "ServiceInstance",
    "ServiceRegistry",
    "Snapshot",
]
