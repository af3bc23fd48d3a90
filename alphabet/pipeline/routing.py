"""Which pipeline an input feeds, and which pipelines' outputs go to a sink.

An application names addresses in its `TCPSourceConfig` and `TCPSinkConfig`; the command
line names addresses too, with or without names. Here they are brought together:

- an input feeds the pipeline that it names; else the first whose source has its
  address and that no input before it feeds; else the first of all;
- a sink gets the outputs of the pipelines whose `TCPSinkConfig` has its address, and of
  those whose config has no host; one that no config names gets all outputs.

Pure.
"""

from collections.abc import Iterable, Sequence

import attrs

from alphabet.network.address import Address, NamedAddress
from alphabet.pipeline.topology import Application

CONSOLE = ("-", "")
"""The address of standard output, as a `TCPSinkConfig` has it."""


def name_inputs(
    inputs: Iterable[NamedAddress], application: Application
) -> tuple[NamedAddress, ...]:
    """Give each input the name of the pipeline that it feeds, if it names none."""
    names = [pipeline.name for pipeline in application.pipelines]
    waiting = [
        (pipeline.name, (pipeline.source.host, pipeline.source.port))
        for pipeline in application.pipelines
    ]
    named = []
    for each in inputs:
        name = each.name
        if name is None:
            place = _written(each.address)
            name = next((n for n, source in waiting if source == place), names[0])
        waiting = [(n, source) for n, source in waiting if n != name]
        named.append(attrs.evolve(each, name=name))
    return tuple(named)


def pipelines_of(
    place: tuple[str, str] | Address, application: Application
) -> frozenset[int] | None:
    """Give the numbers of the pipelines whose outputs go to a sink; None for all."""
    where = _written(place) if isinstance(place, Address) else place
    named = _naming(where, application)
    if not named:
        return None
    sinks = [pipeline.sink for pipeline in application.pipelines]
    return frozenset(named) | {n for n, sink in enumerate(sinks) if not sink.host}


def name_outputs(
    outputs: Sequence[NamedAddress], application: Application
) -> tuple[NamedAddress, ...]:
    """Name those of several sinks that have no name, where one pipeline is theirs.

    A sink is called as the first pipeline that goes to it, unless another sink is.
    """
    if len(outputs) == 1:
        return tuple(outputs)
    taken = {each.name for each in outputs}
    named = []
    for each in outputs:
        numbers = _naming(_written(each.address), application)
        names = [application.pipelines[number].name for number in numbers]
        free = [name for name in names if name not in taken]
        name = each.name or next(iter(free), None)
        taken.add(name)
        named.append(attrs.evolve(each, name=name))
    return tuple(named)


def _naming(where: tuple[str, str], application: Application) -> list[int]:
    """Give the numbers of the pipelines whose sink has an address."""
    sinks = [(each.sink.host, each.sink.port) for each in application.pipelines]
    return [number for number, sink in enumerate(sinks) if sink == where]


def _written(address: Address) -> tuple[str, str]:
    """Write an address as configs have it."""
    return address.host, str(address.port)
