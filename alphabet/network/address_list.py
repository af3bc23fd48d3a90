"""An option's value that is one named address or several: `[NAME@]HOST:PORT,…`."""

from collections.abc import Sequence

import attrs
import click

from alphabet.network.address import AddressError, NamedAddress, parse_named_address

Listed = tuple[NamedAddress | str, ...]


@attrs.define
class AddressListType(click.ParamType[Listed]):
    """An option's value: addresses with commas between them, as Wallaroo has it.

    With `or_dash`, `-` is one too; it is left as it is.
    """

    or_dash: bool = False
    name: str = attrs.field(default="[NAME@]HOST:PORT", init=False)

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Listed:
        """Read the addresses, unless they are read already."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(
                each if each == "-" and self.or_dash else parse_named_address(each)
                for each in str(value).split(",")
            )
        except AddressError as error:
            self.fail(str(error), param, ctx)


def flatten(
    _ctx: click.Context, _param: click.Parameter, values: Sequence[Listed]
) -> Listed:
    """Make one list of all that a repeatable option was given."""
    return tuple(each for value in values for each in value)
