"""The batch form of a pipeline, where all of its components offer one.

`executemany` to `execute`: the same meaning, for many events at once, over numpy
columns. What a component offers is looked for once; a pipeline that lacks any of
them goes event by event.

Pure.
"""

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from alphabet.framing import Rows
from alphabet.pipeline.output_framing import framing_of
from alphabet.pipeline.topology import Pipeline, StatefulStep
from log.block import Records

EVENTS_MIN = 64
"""Fewer events than this go one by one, which is then faster."""
SLICE_EVENTS_MAX = 1 << 15
"""How many events one call takes: their columns stay in a core's cache."""
REPLAY_EVENTS_MAX = 1 << 17
"""The same for replay, which has fewer columns."""


@attrs.frozen
class BatchMethods:
    """A pipeline's batch methods.

    `decode(rows)` gives columns, `compute(columns, state)` gives (outputs, flags) or
    raises before it changed anything, `encode(outputs)` gives a row of bytes for each
    event, `replay(columns, state)` changes the state alone.
    """

    state_name: str
    decode: Callable[[Rows], Any]
    compute: Callable[[Any, Any], tuple[Any, NDArray[np.bool_]]]
    encode: Callable[[Any], Rows]
    replay: Callable[[Any, Any], object]


def find_batch_methods(pipeline: Pipeline) -> BatchMethods | None:
    """Give a pipeline's batch methods, or None where one is missing.

    Outputs that are held to a framing are looked at one by one.
    """
    if len(pipeline.steps) != 1 or framing_of(pipeline.sink.encoder) is not None:
        return None
    (step,) = pipeline.steps
    if not isinstance(step, StatefulStep) or step.partition_function is not None:
        return None
    decode = getattr(pipeline.source.decoder, "decode_batch", None)
    compute = getattr(step.computation, "compute_batch", None)
    encode = getattr(pipeline.sink.encoder, "encode_batch", None)
    replay = getattr(step.computation, "replay_batch", compute)
    if decode is None or compute is None or encode is None or replay is None:
        return None
    return BatchMethods(step.state_name, decode, compute, encode, replay)


def slices(records: Records, events_max: int) -> Iterator[tuple[Rows | None, Records]]:
    """Cut records into pieces, as rows too where they have one size; a gap has none."""
    size = records.record_bytes
    for start in range(0, 0 if records.is_gap else records.count, events_max):
        part = records.cut(start, start + events_max)
        rows = np.frombuffer(part.body, np.uint8).reshape(-1, size) if size else None
        yield rows, part
