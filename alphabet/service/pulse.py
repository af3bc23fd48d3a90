"""Whether counting goes on, told from two looks at what the server measures.

The count thread makes a turn at least once a second, idle or not, unless it waits for
a commit. So a server is stuck if one commit has lasted from one look to the next, or if
there was neither a turn nor another commit between them. On a full disk each retry is a
commit of its own: waiting for room is not being stuck. Pure.
"""

import attrs


@attrs.define
class Pulse:
    """What the last look saw."""

    _turns: int = attrs.field(default=-1, init=False)
    _commit_began: float | None = attrs.field(default=None, init=False)

    def beats(self, turns: int, commit_began: float | None) -> bool:
        """Take a look; say whether something went on since the last one.

        `turns` counts those of the count thread; `commit_began` is when the commit
        began that is in flight, None if none is.
        """
        is_same_commit = commit_began == self._commit_began
        is_still = turns == self._turns and is_same_commit
        is_hanging = commit_began is not None and is_same_commit
        self._turns, self._commit_began = turns, commit_began
        return not (is_still or is_hanging)
