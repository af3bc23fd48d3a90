"""What this program is: its version, the log format it writes, LMDB's engine."""

from importlib import metadata

from log.block import FORMAT_VERSION
from log.row import ENGINE

DISTRIBUTION = "alphabet-votes"


def describe_version(program: str) -> str:
    """Say it in one line."""
    version = metadata.version(DISTRIBUTION)
    return f"{program} {version}, log format {FORMAT_VERSION}, engine {ENGINE}"
