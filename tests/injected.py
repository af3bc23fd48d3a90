"""System calls of a real server that fail as a test says, by strace.

strace is the tracer, and the server stays our own child (`--daemonize`). Calls that are
not named run at full speed. Calls are counted for each thread apart.
"""

from pathlib import Path


def failing(calls: str, how: str, *files: Path) -> list[str]:
    """Give the command that lets calls of a server fail, of these files or of any.

    `calls` are names with commas between; `how` is what strace's inject= takes, such
    as `error=EIO:when=2`, the second of each thread, or `error=EIO:when=2+`, that
    and all after it.
    """
    of_files = [word for file in files for word in ("--trace-path", str(file))]
    return [
        *("strace", "--daemonize", "--follow-forks", "--seccomp-bpf"),
        *("--quiet=all", "--output", "/dev/null", *of_files),
        *("--trace", calls, f"--inject={calls}:{how}"),
    ]
