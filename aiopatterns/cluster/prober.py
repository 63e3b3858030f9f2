"""The failure detector: one probe a period, by three roads before anybody is accused.

::

    0          ping ------------------------------> target
    timeout    no answer: proxy -> 3 helpers -----> target     and a check over the reliable road
               helpers: "heard" (so this node is not cut off itself), then the answer if one comes
    period     still none: this node accuses the target

Guarantees:

* Whoever is not believed alive is told so with the ping itself, so that it can contradict at once
  (memberlist's pull request 84), and by the dead now and then as well: that is how the two sides of
  a partition find together again.
* A node that is slow itself waits longer; time in which its loop was stuck does not count against
  others.

A plain state machine, like :mod:`aiopatterns.cluster.membership`.

Source: Das, Gupta and Motivala, "SWIM", DSN 2002, section 4.1; Lifeguard, DSN 2018; the reliable
road is memberlist's TCP fallback. There helpers say no when they have no answer by a certain time;
here they say at once that they will ask, which tells the same of *this* node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, final

from aiopatterns.cluster.awareness import Awareness
from aiopatterns.cluster.member import MemberState
from aiopatterns.cluster.messages import Ack, Heard, Ping, Proxy
from aiopatterns.core.clock import rng

if TYPE_CHECKING:
    from aiopatterns.cluster.membership import Membership
    from aiopatterns.cluster.messages import Head
    from aiopatterns.cluster.swim import Swim

__all__ = ["MAX_RELAYS", "Outlet", "Prober"]

MAX_RELAYS: Final = 10_000
"""Pings for others that a helper remembers in one period."""


class Outlet(Protocol):
    """What a prober can have done."""

    def send(self, address: str, head: Head, *, about: str = "") -> None:
        """Send a packet, with what has to be told to the member ``about`` of itself."""
        ...

    def ask(self, name: str, address: str, number: int) -> None:
        """Ask over the reliable road; :meth:`Prober.answered` with ``number`` if it is there."""
        ...


@final
class Prober:
    """Probes of one node.

    Args:
        members: The table.
        swim: The settings.
        outlet: What sends.
        now: Monotonic seconds; the first probe comes within one period of it, by chance.
    """

    __slots__ = (
        "_answered",
        "_asked",
        "_end",
        "_helpers",
        "_members",
        "_number",
        "_outlet",
        "_pinged",
        "_relays",
        "_relays_before",
        "_swim",
        "_target",
        "awareness",
        "due",
        "failed",
        "probes",
    )

    def __init__(self, members: Membership, swim: Swim, outlet: Outlet, *, now: float) -> None:
        self._members = members
        self._swim = swim
        self._outlet = outlet
        self.awareness: Awareness = Awareness()
        self.due: float = now + rng().random() * swim.probe  # when something has to be done
        self.probes: int = 0
        self.failed: int = 0
        self._number = rng().getrandbits(32)  # of the last ping, own or for others
        self._target = ""  # who is being probed, if anybody
        self._asked = 0  # number of that ping
        self._pinged, self._answered = False, True
        self._end = 0.0  # of this period
        self._helpers = 0  # that were asked and have not been heard
        # Pings for others by number: whom to tell, and by which number of theirs. Two generations.
        self._relays: dict[int, tuple[str, int]] = {}
        self._relays_before: dict[int, tuple[str, int]] = {}

    def step(self, now: float) -> None:
        """Do what is due."""
        if now < self.due:
            return
        if self._pinged and now < self._end:
            self._pinged = False
            self.due = self._end
            self._ask_others()
            return
        if self._target and not self._answered:
            self._fail(now)
        self._begin(now)

    def heed(self, head: Head, sender: str, address: str) -> None:
        """Take in what a packet is about.

        Args:
            head: Its head.
            sender: Who sent it.
            address: Where that is reached.
        """
        if isinstance(head, Ping):
            # Whoever has the address of a member that is gone must not answer in its name.
            if head.target == self._members.me.name:
                self._outlet.send(address, Ack(head.number), about=sender)
        elif isinstance(head, Ack):
            self.answered(head.number)
        elif isinstance(head, Proxy):
            self._relay(head, address)
        elif head.number == self._asked and self._helpers:
            self._helpers -= 1

    def answered(self, number: int) -> None:
        """The ping of this number was answered, by whatever road."""
        if number == self._asked:
            if not self._answered:
                self._answered = True
                self.awareness.improve()
                self._pinged = False
                self.due = self._end
            return
        relay = self._relays.pop(number, None) or self._relays_before.pop(number, None)
        if relay is not None:
            address, asked = relay
            self._outlet.send(address, Ack(asked))

    def stall(self, seconds: float) -> None:
        """The loop was stuck for so long: nobody is to blame for what was not heard meanwhile."""
        self.awareness.worsen()
        self.due += seconds
        self._end += seconds

    def _begin(self, now: float) -> None:
        self._end = now + self.awareness.stretch(self._swim.probe)
        self.due = self._end
        self._relays, self._relays_before = {}, self._relays
        self._nudge_the_dead()
        name = self._members.ring.next()
        self._target = name or ""
        if name is None:
            return
        self.probes += 1
        self._asked = self._next_number()
        self._pinged, self._answered = True, False
        self._helpers = 0
        self.due = now + self._swim.timeout
        self._outlet.send(self._members.members[name].address, Ping(self._asked, name), about=name)

    def _ask_others(self) -> None:
        """Try the other roads to a target that has not answered."""
        target = self._members.members[self._target]
        helpers = self._members.ring.sample(self._swim.indirect, but=target.name)
        self._helpers = len(helpers)
        proxy = Proxy(self._asked, target.name, target.address)
        for name in helpers:
            self._outlet.send(self._members.members[name].address, proxy)
        self._outlet.ask(target.name, target.address, self._asked)

    def _fail(self, now: float) -> None:
        """Nobody has heard of the target; helpers that were silent say something of this node."""
        self.failed += 1
        self.awareness.worsen(self._helpers if self._swim.indirect else 1)
        self._members.accuse(self._target, now)

    def _relay(self, proxy: Proxy, address: str) -> None:
        if len(self._relays) >= MAX_RELAYS:
            return
        number = self._next_number()
        self._relays[number] = (address, proxy.number)
        self._outlet.send(address, Heard(proxy.number))
        self._outlet.send(proxy.address, Ping(number, proxy.target), about=proxy.target)

    def _nudge_the_dead(self) -> None:
        """Ask about one dead member a period in the whole cluster, for each that is dead."""
        table = self._members
        if len(table.members) == table.living:
            return
        dead = [each for each in table.members.values() if each.state is MemberState.DEAD]
        if dead and rng().random() * table.living < len(dead):
            lost = rng().choice(dead)
            number = self._next_number()  # the answer says all by being sent
            self._outlet.send(lost.address, Ping(number, lost.name), about=lost.name)

    def _next_number(self) -> int:
        self._number += 1
        return self._number
