"""One simulated process: its threads, locks, queues and clock, all in one real thread.

A thread of the server is a greenlet. Whatever it does with a lock, a queue, a socket,
the disk or the clock is a place where another may go first, or where the process may
end; in between it runs alone. Who goes next, and how far, is the caller's choice.
"""

from collections import deque
from collections.abc import Callable
from typing import Self

import attrs
import greenlet

UNBOUNDED = 1 << 30


class Killed(greenlet.GreenletExit):
    """The process ends here: nothing that its threads still do has any effect."""


@attrs.define
class Clock:
    """The time of the machine, which outlives a process; `wall_offset` may jump."""

    now: float = 1000.0
    wall_offset: float = 1_700_000_000.0

    @property
    def wall_ns(self) -> int:
        """The wall clock."""
        return int((self.now + self.wall_offset) * 1e9)


@attrs.define(eq=False)
class Task:
    """A thread: what it waits for, and until when."""

    name: str
    routine: greenlet.greenlet
    is_awaited: Callable[[], bool]
    until: float = 0.0
    is_waiting: bool = False
    operations_left: int = UNBOUNDED


@attrs.define(eq=False)
class Process:
    """The threads of one life of the server."""

    clock: Clock
    tasks: list[Task] = attrs.Factory(list)
    is_dead: bool = False
    _current: Task | None = None
    _hub: greenlet.greenlet = attrs.Factory(greenlet.getcurrent)

    def spawn(self, name: str, target: Callable[[], None]) -> Task:
        """Begin a thread, which runs when it is resumed."""
        task = Task(name, greenlet.greenlet(target, self._hub), lambda: True)
        self.tasks.append(task)
        return task

    def ready(self) -> list[Task]:
        """Give the threads that can go on."""
        self.tasks = [task for task in self.tasks if not task.routine.dead]
        return [task for task in self.tasks if self._is_ready(task)]

    def _is_ready(self, task: Task) -> bool:
        return not task.is_waiting or self.clock.now >= task.until or task.is_awaited()

    def next_deadline(self) -> float | None:
        """Say when the first of those that wait for a time goes on."""
        times = [task.until for task in self.tasks if task.is_waiting]
        return min((time for time in times if time < float("inf")), default=None)

    def resume(self, task: Task, operations: int = UNBOUNDED) -> None:
        """Let a thread go on until it waits, or has done so many operations."""
        task.operations_left = operations
        task.is_waiting = False
        self._current = task
        try:
            task.routine.switch()
        finally:
            self._current = None

    def pause(self) -> None:
        """Let others go first, if it is time for that: one operation is over."""
        task = self._current
        if task is None or self.is_dead:
            return
        task.operations_left -= 1
        if task.operations_left <= 0:
            self._leave()

    def wait(self, is_awaited: Callable[[], bool], seconds: float | None) -> bool:
        """Wait until something is so, or the time is up; say whether it is so."""
        if self.is_dead:
            raise Killed
        self.pause()
        task = self._current
        if is_awaited():
            return True
        assert task is not None, "nobody can wait outside of a thread"
        until = float("inf") if seconds is None else self.clock.now + seconds
        while not is_awaited() and self.clock.now < until:
            task.is_awaited, task.until, task.is_waiting = is_awaited, until, True
            self._leave()
        return is_awaited()

    def _leave(self) -> None:
        self._hub.switch()
        if self.is_dead:
            raise Killed

    def step(self) -> None:
        """Be a place where the process may end, also where nobody waits."""
        self.wait(lambda: True, None)

    def kill(self) -> None:
        """End the process between two operations."""
        self.is_dead = True
        for task in self.tasks:
            if not task.routine.dead:
                task.routine.throw(Killed)
        self.tasks.clear()


@attrs.define
class Machine:
    """Which process is running now: what is made belongs to it."""

    process: Process


running = Machine(Process(Clock()))


@attrs.define(eq=False)
class Lock:
    """As `threading.Lock`."""

    _process: Process = attrs.Factory(lambda: running.process)
    _is_held: bool = False

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take it, waiting for that if asked to."""
        process = self._process
        if process.is_dead:
            return True
        process.pause()
        if self._is_held and not blocking:
            return False
        process.wait(lambda: not self._is_held, None)
        self._is_held = True
        return True

    def release(self) -> None:
        """Let it go."""
        assert self._is_held or self._process.is_dead
        self._is_held = False

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@attrs.define(eq=False)
class Condition:
    """As `threading.Condition`, on a lock that its holder may take again."""

    _process: Process = attrs.Factory(lambda: running.process)
    _holder: object = None
    _depth: int = 0
    _told: int = 0

    def __enter__(self) -> Self:
        process = self._process
        me = greenlet.getcurrent()
        if self._holder is not me and not process.is_dead:
            process.pause()
            process.wait(lambda: self._holder is None, None)
            self._holder = me
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth <= 0:
            self._holder, self._depth = None, 0

    def wait(self, seconds: float | None = None) -> bool:
        """Let the lock go until somebody notifies, or the time is up."""
        told, depth = self._told, self._depth
        self._holder, self._depth = None, 0
        is_told = self._process.wait(lambda: self._told > told, seconds)
        self._process.wait(lambda: self._holder is None, None)
        self._holder, self._depth = greenlet.getcurrent(), depth
        return is_told

    def notify_all(self) -> None:
        """Wake all that wait."""
        self._told += 1

    notify = notify_all


@attrs.define(eq=False)
class Event:
    """As `threading.Event`."""

    _process: Process = attrs.Factory(lambda: running.process)
    _is_set: bool = False

    def is_set(self) -> bool:
        """Say whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it."""
        self._process.pause()
        self._is_set = True

    def clear(self) -> None:
        """Take it back."""
        self._is_set = False

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is set, or the time is up."""
        return self._process.wait(self.is_set, seconds)


@attrs.define(eq=False)
class Queue:
    """As `queue.Queue` and `queue.SimpleQueue`."""

    maxsize: int = UNBOUNDED
    unfinished_tasks: int = 0
    _process: Process = attrs.Factory(lambda: running.process)
    _items: deque[object] = attrs.Factory(deque)

    def __class_getitem__(cls, _: object) -> type[Self]:
        return cls

    def put(self, item: object) -> None:
        """Add at the end, once there is room."""
        self._process.wait(lambda: len(self._items) < self.maxsize, None)
        self._items.append(item)
        self.unfinished_tasks += 1

    def get(self) -> object:
        """Take from the beginning, once something is there."""
        self._process.wait(lambda: bool(self._items), None)
        return self._items.popleft()

    def task_done(self) -> None:
        """Take note that one of those that were taken is done."""
        self._process.pause()
        self.unfinished_tasks -= 1


@attrs.define(eq=False)
class Thread:
    """As `threading.Thread`."""

    target: Callable[[], None]
    name: str
    daemon: bool
    _process: Process = attrs.Factory(lambda: running.process)
    _task: Task | None = None

    def start(self) -> None:
        """Begin."""
        self._task = self._process.spawn(self.name, self.target)

    def is_alive(self) -> bool:
        """Say whether it has begun and not ended."""
        return self._task is not None and not self._task.routine.dead

    def join(self, seconds: float | None = None) -> None:
        """Wait for its end, or until the time is up."""
        self._process.wait(lambda: not self.is_alive(), seconds)


def sleep(seconds: float) -> None:
    """As `time.sleep`."""
    running.process.wait(lambda: False, seconds)
