"""The parts: each module has `cases(plan)`, a context that gives its cases.

What a part makes beforehand, such as long logs, lives as long as that context.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TypeAlias

from bench.case import Case
from bench.plan import Plan

NAMES = (
    "throughput",
    "latency",
    "disk",
    "restart",
    "memory",
    "event_path",
    "connector",
    "limits",
    "profile",
    "beside",
    "flood",
    "watched",
    "servers",
    "spark",
)

Cases: TypeAlias = Callable[[Plan], AbstractContextManager[list[Case]]]


def find(name: str) -> Cases:
    """Give a part by its name."""
    found: Cases = import_module(f"bench.parts.{name}").cases
    return found
