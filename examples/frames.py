"""Make frames of lines, and lines of frames: what `alphabet send` and `receive` carry.

    python3 examples/frames.py write < words.txt | alphabet send -
    python3 examples/frames.py write --layout '>f' < readings.txt | alphabet send -
    python3 examples/frames.py read < outputs.bin

A frame is its payload's length in four bytes, big-endian, and the payload: a line as it
is or, with a layout as Python's `struct` has it, the line's words as binary fields.
"""

import argparse
import os
import struct
import sys
from collections.abc import Iterable, Iterator

HEADER = struct.Struct(">I")


def write(lines: Iterable[str], layout: str | None = None) -> Iterator[bytes]:
    """Make a frame of each line.

    Raises:
        ValueError: A line's words are not what the layout asks for.
    """
    for line in lines:
        payload = line.rstrip("\n").encode() if layout is None else pack(line, layout)
        yield HEADER.pack(len(payload)) + payload


def read(data: bytes, layout: str | None = None) -> Iterator[str]:
    """Make a line of each frame.

    Raises:
        ValueError: The last frame is not whole, or a payload is not of the layout.
    """
    while data:
        size = HEADER.unpack(data[: HEADER.size])[0] if len(data) >= HEADER.size else -1
        payload, data = data[HEADER.size :][:size], data[HEADER.size + size :]
        if len(payload) != size:
            raise ValueError("the last frame is not whole")
        yield payload.decode() if layout is None else unpack(payload, layout)


def pack(line: str, layout: str) -> bytes:
    """Write a line's words as binary fields."""
    try:
        return struct.pack(layout, *map(_value, line.split()))
    except struct.error as error:
        raise ValueError(f"{line!r} is not of the layout {layout}: {error}") from error


def unpack(payload: bytes, layout: str) -> str:
    """Write binary fields as words."""
    try:
        fields = struct.unpack(layout, payload)
    except struct.error as error:
        raise ValueError(f"an output is not of the layout {layout}: {error}") from error
    return " ".join(map(_word, fields))


def _value(word: str) -> int | float | bytes:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    return word.encode()


def _word(field: object) -> str:
    if isinstance(field, bytes):
        return field.rstrip(b"\0").decode()
    return f"{field:g}" if isinstance(field, float) else str(field)


def main(words: list[str]) -> None:
    """Read standard input, and write standard output."""
    parser = argparse.ArgumentParser(description="Lines to frames, and back.")
    parser.add_argument("action", choices=["write", "read"])
    parser.add_argument("--layout", help="fields as struct has them, such as '>f'")
    given = parser.parse_args(words)
    try:
        if given.action == "write":
            for frame in write(sys.stdin, given.layout):
                sys.stdout.buffer.write(frame)
        else:
            for line in read(sys.stdin.buffer.read(), given.layout):
                print(line)
        sys.stdout.flush()
    except ValueError as error:
        sys.exit(f"frames.py: {error}")
    except BrokenPipeError:  # Who read this has ended, and has said why.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
