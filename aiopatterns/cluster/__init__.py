"""Who is alive, where, and whom to ask."""

from aiopatterns.cluster.instance import InstanceState, ServiceInstance
from aiopatterns.cluster.snapshot import Snapshot

__all__ = ["InstanceState", "ServiceInstance", "Snapshot"]
