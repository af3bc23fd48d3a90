"""The main job with a crash in its middle: what happens, and how it is judged.

A server, a sender and a receiver, all real processes, count a file of votes. The
server is killed in mid-stream and started again, the sender goes on behind the log's
last event. Then the file's own sum, which no server has touched, is held against the
log's totals and against the last totals that the receiver got.

What people see of it is the `Display`'s affair.
"""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Protocol

import attrs

from alphabet.trial.vote_sum import ReceivedOutputs, VoteSum, differences

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from alphabet.trial.children import Child, Children

KILL_SHARE = 0.45
"""Which part of the outputs has come when the server is killed."""
SNAPSHOTS = 10
"""How many snapshots all votes are enough for."""
SILENCE_SECONDS_MAX = 15.0
"""How long nothing may come before waiting for it is given up."""
LOOK_SECONDS = 0.05

ALPHABET = "alphabet.cli"
REPLAY = "recovery.cli"
LOOPBACK = "127.0.0.1:0"


class Display(Protocol):
    """Whoever watches a demonstration."""

    def say(self, line: str) -> None:
        """Hear what happened, in plain words."""

    def update(self, totals: Mapping[str, int]) -> None:
        """See the totals that the receiver has got so far."""


@attrs.frozen
class Plan:
    """What to count, where, and how fast.

    `rate` is in votes per second; `directory` takes everything but the data.
    """

    file: Path
    expected: VoteSum
    data_dir: Path
    directory: Path
    rate: float


@attrs.define
class Demonstration:
    """One run: the parts in play, and the phases in their order."""

    plan: Plan
    children: Children
    display: Display
    silence_seconds_max: float = SILENCE_SECONDS_MAX
    _received: ReceivedOutputs = attrs.field(init=False)
    _out: str = attrs.field(default="", init=False)
    _in: str = attrs.field(default="", init=False)

    @_received.default
    def _nothing_received(self) -> ReceivedOutputs:
        return ReceivedOutputs(self.plan.directory / "received")

    def run(self) -> list[str]:
        """Do it all; give what is not as it should be. Raises ChildError."""
        receiver = self._start_receiver()
        server = self._start_server()
        self.display.say(f"server {server.pid} counts, its log is empty")
        sender = self._start_sender(0)
        kill_at = int(self.plan.expected.votes * KILL_SHARE)
        self._watch(lambda: self._received.outputs >= max(kill_at, 1))
        sequence = self._kill(server, sender)
        server = self._start_again(sequence)
        sender = self._start_sender(sequence)
        self.display.say(f"sending goes on behind it: alphabet send --skip {sequence}")
        self._watch(lambda: not sender.is_alive)
        sender.require_end(0)
        self.display.say("the sender has its receipt: all votes are durable")
        self._watch(self._has_all_come)
        server.signal(signal.SIGTERM)
        server.require_end(0)
        receiver.signal(signal.SIGTERM)
        receiver.require_end(0)
        return self._judge()

    def _start_receiver(self) -> Child:
        self._received.file.touch()
        receiver = self.children.start(
            "receiver",
            ALPHABET,
            *("receive", "--listen", LOOPBACK, "--output", self._received.file),
        )
        self._out = receiver.await_line("listening in ", is_error=True)
        return receiver

    def _start_server(self) -> Child:
        plan = self.plan
        every = max(plan.expected.votes // SNAPSHOTS, 1)
        server = self.children.start(
            "server",
            ALPHABET,
            *("run", "--in", LOOPBACK, "--out", self._out, "--http", "none"),
            *("--data-dir", plan.data_dir, "--snapshot-every", every),
        )
        self._in = server.await_line("listening in ")
        server.await_line("Application has successfully initialized")
        return server

    def _start_sender(self, skip: int) -> Child:
        return self.children.start(
            "sender",
            ALPHABET,
            *("send", self.plan.file, "--to", self._in),
            *("--skip", skip, "--rate", self.plan.rate),
        )

    def _kill(self, server: Child, sender: Child) -> int:
        """Kill the server, and give the last sequence that its log holds."""
        server.require_alive()
        server.signal(signal.SIGKILL)
        server.await_end()
        is_cut_off = sender.await_end() != 0
        info = json.loads(
            self.children.run("info", REPLAY, "info", self.plan.data_dir, "--json")
        )
        sequence = int(info["last_sequence"])
        self.display.say(
            f"KILLED: server {server.pid} got SIGKILL after sequence {sequence}; the "
            f"sender {'lost its connection' if is_cut_off else 'was done already'}"
        )
        return sequence

    def _start_again(self, sequence: int) -> Child:
        started = time.monotonic()
        server = self._start_server()
        milliseconds = 1000 * (time.monotonic() - started)
        replayed = int(server.await_line("RESILIENCE: Replayed ").split()[0])
        start = sequence - replayed
        place = f"from the snapshot at {start}" if start else "from the log's beginning"
        self.display.say(
            f"started again: server {server.pid} replayed {replayed} events {place}; "
            f"ready {milliseconds:.0f} ms after its start"
        )
        return server

    def _watch(self, is_over: Callable[[], bool]) -> None:
        """Show what comes until it is over, or nothing has come for long."""
        deadline = time.monotonic() + self.silence_seconds_max
        while time.monotonic() < deadline:
            was_over = is_over()
            if self._received.read():
                deadline = time.monotonic() + self.silence_seconds_max
                self.display.update(self._received.totals)
            if was_over:
                return
            time.sleep(LOOK_SECONDS)

    def _has_all_come(self) -> bool:
        expected = self.plan.expected
        has_all = self._received.outputs >= expected.votes
        return has_all and self._received.totals == expected.totals

    def _judge(self) -> list[str]:
        """Hold both results against the file's own sum."""
        expected = self.plan.expected
        state = json.loads(
            self.children.run("state", REPLAY, "state", self.plan.data_dir, "--json")
        )
        twice = self._received.outputs - expected.votes
        self.display.say(
            f"the receiver got {self._received.outputs} outputs"
            + (f", {twice} of them twice (at least once is promised)" * (twice > 0))
        )
        faults = differences(expected.totals, state["totals"], "the log's")
        faults += differences(expected.totals, self._received.totals, "the receiver's")
        if state["sequence"] != expected.votes:
            held = f"the log holds {state['sequence']}"
            faults.append(f"the file has {expected.votes} votes, {held}")
        if twice < 0:
            faults.append(f"{-twice} outputs never came")
        return faults
