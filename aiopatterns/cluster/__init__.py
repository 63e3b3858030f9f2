"""Who is alive, where, and whom to ask."""

from aiopatterns.cluster.instance import InstanceState, ServiceInstance

__all__ = ["InstanceState", "ServiceInstance"]
