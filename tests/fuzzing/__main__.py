"""Fuzz targets in turn, or keep what was found: `make fuzz` runs this.

Inputs that reach new code gather in `.fuzz/NAME`; `--keep` merges them into
`tests/corpus/NAME`, with as few files as reach the same. An input that breaks a target
is left in `.fuzz` as `NAME-crash-…`, and the command ends with 1.
"""

import argparse
import itertools
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzzing.seeds import SEEDS
from tests.fuzzing.targets import TARGETS, Target, file_name

WORK = Path(".fuzz")
SECONDS = 180
INPUT_BYTES_MAX = 8192
INPUT_SECONDS_MAX = 20
MEMORY_MB_MAX = 1024
KEPT_FILES_MAX = 40
KEPT_BYTES_MAX = 80_000


def main() -> int:
    """Do what the command line says; give the exit code."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    unknown = set(options.names) - TARGETS.keys()
    if unknown:
        parser.error(f"there is no target {min(unknown)}: {', '.join(TARGETS)}")
    failed = []
    for name in options.names or TARGETS:
        if options.keep:
            keep(TARGETS[name])
        elif fuzz(TARGETS[name], options.seconds):
            failed.append(name)
    if failed:
        print(f"broken: {', '.join(failed)}; see {WORK}/", file=sys.stderr)
    return 1 if failed else 0


def fuzz(target: Target, seconds: int) -> int:
    """Fuzz a target, from what is kept, what was found before and the seeds."""
    work = WORK / target.name
    work.mkdir(parents=True, exist_ok=True)
    target.corpus.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS[target.name]():
        (work / file_name(seed)).write_bytes(seed)
    arguments = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={WORK}/{target.name}-",
    ]
    if target.words:
        words = WORK / f"{target.name}.words"
        escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
        words.write_text("".join(f'"{word}"\n' for word in escaped))
        arguments.append(f"-dict={words}")
    return _run(target, *arguments, work, target.corpus)


def keep(target: Target) -> None:
    """Make the corpus the smallest set that reaches what all inputs do.

    What was kept before stays: it is there for a reason that coverage may not show.
    """
    target.corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        merged = Path(name)
        for path in target.corpus.iterdir():
            shutil.copy(path, merged)
        _run(target, "-set_cover_merge=1", merged, WORK / target.name)
        paths = sorted(merged.iterdir(), key=lambda path: path.stat().st_size)
        sizes = itertools.accumulate(path.stat().st_size for path in paths)
        for path, size in zip(paths[:KEPT_FILES_MAX], sizes, strict=False):
            if size <= KEPT_BYTES_MAX:
                shutil.copy(path, target.corpus)


def _run(target: Target, *arguments: object) -> int:
    """Run the engine; give its exit code."""
    WORK.mkdir(exist_ok=True)
    script = WORK.absolute() / f"{target.name}.sh"
    engine = shlex.join([sys.executable, "-m", "tests.fuzzing.engine", target.name])
    script.write_text(f'#!/bin/sh\nexec {engine} {shlex.quote(str(script))} "$@"\n')
    script.chmod(0o700)
    command: list[str | Path] = [
        script,
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-rss_limit_mb={MEMORY_MB_MAX}",
        "-print_final_stats=1",
        *map(str, arguments),
    ]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
