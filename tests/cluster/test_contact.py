"""An outage is told once when it begins and once when it is over."""

from __future__ import annotations

from aiopatterns.cluster.contact import Contact, RegistryInterrupted, RegistryResumed
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.testing import capture_events, simulate


def test_an_outage_is_two_events():
    async def main():
        contact = Contact("registry", "reading")
        with capture_events() as events:
            contact.answered()
            assert contact.up
            contact.failed(BackendUnavailableError("away"))
            await sleep(1)
            contact.failed(BackendUnavailableError("still away"))
            assert not contact.up
            await sleep(2)
            contact.answered()
            contact.answered()
        assert contact.up
        assert contact.interruptions == 1
        assert events == [
            RegistryInterrupted("registry", "reading", "away"),
            RegistryResumed("registry", "reading", 3.0),
        ]

    simulate(main)


def test_nobody_listens():
    contact = Contact("registry", "writing")
    contact.failed(BackendUnavailableError("away"))
    assert (contact.up, contact.interruptions) == (False, 1)
    contact.answered()
    assert contact.up
