"""A long run as a command: `python -m tests.endurance_report`, and what it writes.

A run that fails keeps its files and says where they are.
"""

import argparse
import contextlib
import datetime as dt
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests import loop_disk
from tests.endurance import PLAIN_VOTES, RATE, STREAMS, Endurance

DISK_BYTES = 1 << 30


def report(run: Endurance) -> str:
    """Write what a run that has passed saw, as Markdown."""
    found = run.found
    own_disk = run.disk != run.place
    disk = "an ext4 disk of its own" if own_disk else "a shared disk, never full"
    receipts = sum(each.has_receipt for each in run.submissions)
    memory = [size / 1e6 for size in found.anonymous_bytes]
    rows = {
        "machine": f"{os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}, {disk}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "seed": str(run.seed),
        "length": f"{run.seconds / 60:.0f} min of blows, "
        f"{found.seconds / 60:.0f} min in all",
        "events": f"{found.events:,}",
        "plain connections": f"{len(run.submissions):,} of {PLAIN_VOTES} votes each, "
        f"{receipts:,} with a receipt",
        "votes counted without a receipt": f"{found.uncertain:,}",
        "outputs that came again to the plain receiver": f"{found.repeated:,}",
        "rejects kept": f"{found.rejects:,}",
        "starts of the server": f"{len(found.ready_seconds):,}",
        "start to ready": _spread(found.ready_seconds, "s", 2),
        "RssAnon": _spread(memory, "MB"),
        "open descriptors": _spread(found.files, ""),
        "log's file": f"{found.log_bytes / 1e6:.0f} MB",
    }
    lines = ["| what | found |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    lines += ["", "| blow | times |", "|---|---|"]
    lines += [f"| {name} | {count:,} |" for name, count in found.blows.most_common()]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], unit: str, digits: int = 0) -> str:
    if not values:
        return "never looked at"
    median = statistics.median(values)
    spread = f"median {median:.{digits}f}, most {max(values):.{digits}f} {unit}"
    return spread.rstrip()


@contextlib.contextmanager
def disk_in(place: Path) -> Iterator[Path]:
    """Give a disk for the data: a small one of its own, where there may be one."""
    if loop_disk.can_mount():
        with loop_disk.mounted(place, DISK_BYTES) as disk:
            yield disk
    else:
        yield place


def main() -> None:
    """Run, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="alphabet-endurance-"))
    sys.stderr.write(
        f"{given.minutes:g} minutes of {len(STREAMS)} streams of {RATE} votes/s, "
        f"seed {given.seed}, files in {place}\n"
    )
    with disk_in(place) as disk:
        run = Endurance(place, disk, given.seed, given.minutes * 60)
        run.run()
    shutil.rmtree(place)
    sys.stdout.write(report(run))


if __name__ == "__main__":
    main()
