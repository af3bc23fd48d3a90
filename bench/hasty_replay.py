"""`alphabet-replay` that lets no server go first: what that costs is measured."""

from recovery import cli, priority

if __name__ == "__main__":
    priority.NICEST = 0
    priority.BUSY_SHARE = 1.0
    cli.run_program()
