import math


class Entry:
    __slots__ = (
        "key",
        "value",
        "fresh_until",
        "stale_until",
        "cost",
        "tags",
        "weight",
        "calm_until",
        "retry_at",
    )


class Near:
    def __init__(self, *, max_size, max_weight=None, weigh=None, eviction="s3fifo"):
        self.d = {}
        self.n = max_size
        self.evictions = 0

    def __class_getitem__(cls, x):
        return cls

    def find(self, key, now):
        e = self.d.get(key)
        if e is None:
            return None
        if now >= e.stale_until:
            del self.d[key]
            return None
        return e

    def put(self, key, value, *, fresh_until, stale_until, cost=0.0, tags=()):
        e = Entry()
        e.key = key
        e.value = value
        e.fresh_until = fresh_until
        e.stale_until = stale_until
        e.cost = cost
        e.tags = tags
        e.calm_until = fresh_until
        e.retry_at = -math.inf
        self.d.pop(key, None)
        if len(self.d) >= self.n:
            del self.d[next(iter(self.d))]
            self.evictions += 1
        self.d[key] = e
        return e

    def drop(self, key):
        return self.d.pop(key, None) is not None

    def clear(self):
        self.d = {}

    def __len__(self):
        return len(self.d)

    def keys(self):
        return list(self.d)
