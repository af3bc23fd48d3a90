"""One target under atheris: `python -m tests.fuzzing.engine NAME SCRIPT ARGUMENTS`.

It is a process of its own, for libFuzzer ends the one that it runs in. The arguments
are libFuzzer's; SCRIPT is what it starts where it needs itself in another process.
"""

import sys

import atheris

with atheris.instrument_imports(include=["alphabet", "log", "recovery"]):
    from tests.fuzzing.targets import TARGETS

_UNSEALED_OF = 8
"""One change in so many keeps the checksums that it broke."""


def main() -> None:
    """Fuzz, merge or run once, as libFuzzer's arguments say."""
    _, name, script, *arguments = sys.argv
    target = TARGETS[name]

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        changed = bytes(atheris.Mutate(data, size_max))
        sealed = target.seal(changed) if seed % _UNSEALED_OF else changed
        return sealed[:size_max]

    atheris.Setup([script, *arguments], target.run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
