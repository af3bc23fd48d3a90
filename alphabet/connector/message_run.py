"""A flood of messages, as they came: frames of one length, seen as columns.

Pure: a `Run` is viewed, not copied, and cut where its messages stop being alike.
"""

import itertools
from collections.abc import Iterator

import attrs
import numpy as np

from alphabet.connector.frames import MESSAGE_HEAD_BYTES
from alphabet.framing import RUN_FRAMES_MIN, Run

LENGTH_BYTES = 4
"""What comes before every frame."""
HEAD_BYTES = LENGTH_BYTES + MESSAGE_HEAD_BYTES
"""A message before its key, its length included."""
KEY_BYTES_MAX = (1 << 16) - 1

Heads = np.ndarray[tuple[int], np.dtype[np.void]]


def heads_of(run: Run) -> Heads:
    """View the heads of messages of one length."""
    form = np.dtype(
        {
            "names": ["type", "stream_id", "message_id", "key_bytes"],
            "formats": ["u1", ">u8", ">u8", ">u2"],
            "offsets": [4, 5, 13, 29],
            "itemsize": run.frame_bytes,
        }
    )
    return np.frombuffer(run.data, form)


def parts_of(run: Run) -> Iterator[tuple[Run, bool]]:
    """Cut a run where the type, stream or key's length changes, or ids do not rise.

    Each part comes with whether its frames are alike; short ones stay together.
    """
    if run.frame_bytes < HEAD_BYTES:
        yield run, False
        return
    heads = heads_of(run)
    ids = heads["message_id"].astype(np.uint64)
    is_start = ids[1:] <= ids[:-1]
    for name in ("type", "stream_id", "key_bytes"):
        field = heads[name]
        is_start |= field[1:] != field[:-1]
    starts = [0, *(1 + np.flatnonzero(is_start)).tolist(), run.count]
    done = 0
    for start, stop in itertools.pairwise(starts):
        if stop - start >= RUN_FRAMES_MIN:
            if done < start:
                yield between(run, done, start), False
            yield between(run, start, stop), True
            done = stop
    if done < run.count:
        yield between(run, done, run.count), False


def between(run: Run, start: int, stop: int) -> Run:
    """Give a run's frames from one to another, exclusive."""
    size = run.frame_bytes
    return attrs.evolve(
        run,
        position=run.position + start * size,
        data=run.data[start * size : stop * size],
    )


def frame_bytes_max(payload_bytes_max: int) -> int:
    """Give the longest frame that may come, without its length; inclusive."""
    return MESSAGE_HEAD_BYTES + KEY_BYTES_MAX + payload_bytes_max
