"""Rounds of the campaign with the plain pair: `alphabet send`, and a plain receiver.

The sender is told nothing by its protocol, so the round plays the operator: what is
on its way settles, and as much as the log then has is left out the next time. What
is held to: no gap, the order kept, and duplicates after a crash or a reset only.
"""

import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import attrs

from tests.campaign import Program, port_of
from tests.inspection import last_sequence, records, totals, verify
from tests.process import Server, submit, wait_until
from tests.receiving import Receiver
from tests.relay import Relay
from tests.votes import (
    OUTPUT_BYTES,
    VOTE_BYTES,
    Vote,
    frame,
    make_votes,
    outputs,
    payloads,
    tally,
    trace,
    wire,
)

STRETCH_VOTES = 5000
STRETCH_BYTES = STRETCH_VOTES * VOTE_BYTES
SMALL_BUFFER = 4096
WAIT_SECONDS_MAX = 0.1
BLOWS = ("sender", "server", "both", "reset")


@attrs.define(eq=False)
class PlainRound:
    """A sender, a server and a receiver that speak plain TCP."""

    place: Path
    votes: Sequence[Vote]
    blows: Sequence[tuple[str, int, float]]
    """What strikes, after so many bytes of its stretch, and so many seconds more."""
    server_words: Sequence[object]
    receiver: Receiver = attrs.field(init=False)
    way_in: Relay = attrs.field(factory=Relay, init=False)
    server: Server | None = attrs.field(default=None, init=False)
    sender: Program | None = attrs.field(default=None, init=False)
    told: list[str] = attrs.field(factory=list, init=False)
    crashes: int = attrs.field(default=0, init=False)
    """Kills of the server, and resets by the receiver."""
    repeated: int = attrs.field(default=0, init=False)
    """Outputs that came more than once, known when the round is over."""

    @classmethod
    def from_seed(cls, seed: int, place: Path, *, is_long: bool = False) -> Self:
        """Make a round."""
        chance = random.Random(seed)
        blows = [
            (
                chance.choice(BLOWS),
                chance.randrange(STRETCH_BYTES),
                chance.choice([0, WAIT_SECONDS_MAX]) * chance.random(),
            )
            for _ in range(chance.randrange(3, 12 if is_long else 6))
        ]
        words = ["--snapshot-every", chance.choice([1, 500])]
        votes = make_votes(chance, STRETCH_VOTES * (len(blows) + 1))
        return cls(place, votes, blows, words)

    def run(self) -> None:
        """Go through all blows, then let everything finish, and look at it."""
        (self.place / "votes").write_bytes(wire(self.votes))
        with Receiver(SMALL_BUFFER) as self.receiver, self.way_in:
            try:
                self._suffer()
                self._finish()
            finally:
                for program in (self.server, self.sender):
                    if program is not None:
                        program.kill()
        self._check_all()

    def _suffer(self) -> None:
        self.way_in.allow(0)
        self.way_in.piece_bytes = 1000
        for blow, wait_bytes, wait_seconds in self.blows:
            self._mend()
            self._let_flow(wait_bytes)
            time.sleep(wait_seconds)
            self.told.append(blow)
            if blow == "reset":
                self._reset()
            else:
                self._kill(blow)

    def _mend(self) -> None:
        """Start whoever is not there; the sender goes on where the log ends."""
        if self.server is None or not self.server.is_running:
            words = ["--out", self.receiver.address, *self.server_words]
            self.server = Server.start(self.place, *words).wait_ready()
            self.way_in.lead_to(port_of(self.server, "in"))
        if self.sender is None or not self.sender.is_running:
            skip = last_sequence(self.place)
            self.told.append(f"send from {skip}")
            words = ["send", "votes", "--to", self.way_in.address, "--skip", skip]
            self.sender = Program.start(self.place, "sender", *words, variables={})

    def _let_flow(self, wait_bytes: int) -> None:
        """Let a stretch's votes go, and wait until so many bytes are on their way."""
        at_bytes = self.way_in.onward_bytes + wait_bytes
        self.way_in.allow(STRETCH_BYTES)
        wait_until(lambda: self.way_in.onward_bytes >= at_bytes, "votes on their way")

    def _kill(self, whom: str) -> None:
        assert self.server is not None
        assert self.sender is not None
        if whom in {"server", "both"}:
            self.server.kill()
            self.crashes += 1
        self.sender.kill()
        self._settle()

    def _settle(self) -> None:
        """Wait until what the sender had given away is in the log, or is lost."""
        assert self.server is not None
        self.way_in.hang_up()
        wait_until(lambda: self.way_in.is_idle, "the end of every connection")
        if self.server.is_running:
            # No vote, and so no event; but its receipt comes after all that was before.
            assert submit(self.server.port, frame(b""))

    def _reset(self) -> None:
        """Let the receiver die with bytes unread, and come back.

        Before anything else happens it has all that the log can give it: that a
        receiver and a server die together is what plain TCP cannot make good.
        """
        assert self.server is not None
        wait_until(lambda: self.receiver.is_connected, "a connection to the receiver")
        self.receiver.stall()
        time.sleep(WAIT_SECONDS_MAX / 2)
        self.receiver.leave(with_reset=True)
        self.crashes += 1
        self.receiver.go_on()
        self.receiver.come_back()
        self._await_received(last_sequence(self.place))

    def _await_received(self, sequence: int) -> None:
        """Wait until the receiver's present connection has reached an event."""
        if not sequence:
            return
        end = outputs(self.votes[:sequence])[-OUTPUT_BYTES:]
        wait_until(
            lambda: self.receiver.connections and end in self.receiver.connections[-1],
            f"the output of event {sequence}",
        )

    def _finish(self) -> None:
        self.way_in.allow(None)
        self._mend()
        assert self.server is not None
        assert self.sender is not None
        sender, server = self.sender, self.server
        wait_until(lambda: not sender.is_running, "all sent")
        assert sender.process.returncode == 0, sender.said()
        self._await_received(len(self.votes))
        assert server.stop(signal.SIGTERM) == 0, server.said()
        self.receiver.wait_hung_up()

    def _check_all(self) -> None:
        expected = outputs(self.votes)
        assert records(self.place) == payloads(self.votes)
        brought = trace(self.receiver.connections, expected)
        assert brought[-1].stop == len(self.votes)
        reached = overlaps = 0
        for each in brought:
            overlaps += each.start < reached
            self.repeated += max(0, reached - each.start)
            reached = max(reached, each.stop)
        assert overlaps <= self.crashes
        assert totals(self.place) == tally(self.votes)
        checked = verify(self.place)
        assert checked["ok"], checked
