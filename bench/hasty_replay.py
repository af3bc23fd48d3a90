"""`alphabet-replay` that lets no server go first: what that costs is measured."""

from recovery import cli, priority

if __name__ == "__main__":
    priority.NICE = 0
    priority.WORKING_SHARE = 1000.0
    cli.run_program()
