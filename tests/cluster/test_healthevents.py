"""Events of health checks: names, levels and fields are public."""

from __future__ import annotations

from dataclasses import fields

from aiopatterns.cluster import HealthChanged, HealthCheckFailed, HealthLoopRestarted


def test_names_levels_and_fields_are_stable():
    assert [
        (kind.name, kind.level, [each.name for each in fields(kind)])
        for kind in (HealthChanged, HealthCheckFailed, HealthLoopRestarted)
    ] == [
        (
            "aiopatterns.health.changed",
            "warning",
            ["checker", "check", "before", "after", "reason"],
        ),
        (
            "aiopatterns.health.check_failed",
            "info",
            ["checker", "check", "reason", "error"],
        ),
        ("aiopatterns.health.loop_restarted", "error", ["checker", "check", "reason"]),
    ]
