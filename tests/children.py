"""What tests of the log have another process do: `python -m tests.children NAME ARG…`.

Each function is one command. One that holds something says `ready`, and lets go when
its standard input ends or it is killed.
"""

import contextlib
import json
import resource
import sys
from pathlib import Path

import lmdb

from log.block import Block, Records
from log.directory import DataDirectory
from log.errors import DiskFullError, LogError
from log.lmdb_store import DATA_FILE, LmdbStore
from log.log import Log, Transaction
from log.row import Cursor, Meta
from log.store import BLOCKS, Change

META = Meta(log_id="0123456789abcdef", application="Alphabet", pipelines=("alphabet",))
COMMITS_MAX = 10_000
TRIES = 3


def hold() -> None:
    """Say that what is held is held, until standard input ends."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


def mapped_bytes(store: LmdbStore) -> int:
    """Give how much address space a store has reserved for its file."""
    file = str(store.path / DATA_FILE)
    lines = Path("/proc/self/maps").read_text().splitlines()
    [bounds] = [line.split()[0] for line in lines if line.endswith(file)]
    start, stop = (int(bound, 16) for bound in bounds.split("-"))
    return stop - start


def create(path: str) -> None:
    """Claim a data directory and make a log in it."""
    with DataDirectory.claim(Path(path)).new_log(META):
        pass


def claim(path: str) -> None:
    """Claim a data directory, and hold it."""
    DataDirectory.claim(Path(path))
    hold()


def readers(path: str, count: str) -> None:
    """Begin that many readers on a store, or all there is room for, and hold them."""
    environment = lmdb.open(path, lib_version=0, max_dbs=5, map_size=1 << 26)
    begun: list[lmdb.Transaction] = []
    with contextlib.suppress(lmdb.ReadersFullError):
        begun += (environment.begin() for _ in range(int(count)))
    hold()
    del begun


def put(path: str, value_bytes: str) -> None:
    """Put a row of that many bytes, under the key `large`."""
    store = LmdbStore.open(Path(path))
    store.commit([Change(BLOCKS, b"large", bytes(int(value_bytes)))], 0)
    store.close()


def in_little_memory(path: str, address_bytes: str) -> None:
    """Put and read a row where the address space is limited.

    Prints how many rows were read, and how many bytes are mapped.
    """
    resource.setrlimit(resource.RLIMIT_AS, (int(address_bytes),) * 2)
    store = LmdbStore.open(Path(path), is_new=True)
    store.commit([Change(BLOCKS, b"a", b"1")], 0)
    rows = len(store.scan(BLOCKS, b"", 1))
    sys.stdout.write(json.dumps([rows, mapped_bytes(store)]))


def in_little_room(path: str, room_bytes: str) -> None:
    """Open a store where most of a limited address space is in use.

    Prints how many bytes are mapped, or why none are.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(room_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        said: object = mapped_bytes(LmdbStore.open(Path(path), is_new=True))
    except LogError as error:
        said = str(error)
    sys.stdout.write(json.dumps(said))


def past_the_address_space(path: str) -> None:
    """Put a row for which the map cannot grow; print what the put and a read said."""
    store = LmdbStore.open(Path(path), is_new=True, map_bytes=1 << 16)
    change = Change(BLOCKS, b"large", bytes(1 << 23))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (1 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    said = []
    try:
        store.commit([change], 0)
    except LogError as error:
        said.append(str(error))
    try:
        store.get(BLOCKS, b"a")
    except LogError as error:
        said.append(str(error))
    sys.stdout.write(json.dumps(said))


def transaction(log: Log, record_bytes: int) -> Transaction:
    """Return the next block, of one record, and a cursor at it."""
    number = log.tail.sequence + 1
    records = Records.pack([number.to_bytes(8) + bytes(record_bytes)])
    block = Block.seal(log.tail, records, time_ns=number)
    return Transaction(blocks=(block,), cursors={"out": Cursor(number, number)})


def on_a_full_disk(path: str, record_bytes: str) -> None:
    """Fill the disk under a log, try twice more, make room, and go on.

    Prints what each try said, how many events were acknowledged, and which a new
    start finds.
    """
    ballast = Path(path) / "ballast"
    ballast.write_bytes(bytes(1 << 18))
    directory = DataDirectory.claim(Path(path) / "data")
    with directory.new_log(META):
        pass
    log = directory.open_log()
    tries: list[tuple[int, bool, int]] = []
    pending = transaction(log, int(record_bytes))
    while len(tries) < TRIES and log.tail.sequence < COMMITS_MAX:
        try:
            log.commit(pending)
            pending = transaction(log, int(record_bytes))
        except DiskFullError as error:
            tries.append((error.code, log.holds(pending), log.tail.sequence))
    acknowledged = log.tail.sequence
    ballast.unlink()
    log.commit(pending)
    log.commit(transaction(log, int(record_bytes)))
    log.close()
    again = directory.open_log(is_read_only=True)
    found = [int.from_bytes(e[:8]) for block in again.read(0) for e in block.records]
    cursor = again.cursors()["out"].sequence
    sys.stdout.write(json.dumps([tries, acknowledged, found, cursor]))


def past_a_file_size(path: str) -> None:
    """Meet an error that is no full disk, and go on when it has passed.

    Prints what the error was, and which events are found then.
    """
    said: list[object] = []
    with DataDirectory.claim(Path(path)).new_log(META) as log:
        pending = transaction(log, 100_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
        try:
            log.commit(pending)
        except LogError as error:
            said += [type(error).__name__, str(error), log.holds(pending)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        log.commit(pending)
        said.append([block.last_sequence for block in log.read(0)])
    sys.stdout.write(json.dumps(said))


COMMANDS = {
    command.__name__: command
    for command in (
        create,
        claim,
        readers,
        put,
        in_little_memory,
        in_little_room,
        past_the_address_space,
        on_a_full_disk,
        past_a_file_size,
    )
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
