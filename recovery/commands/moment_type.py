"""An option's value that is a moment of a log's past."""

import attrs
import click

from recovery.moment import Moment, MomentError, parse_moment


@attrs.define
class MomentType(click.ParamType[Moment]):
    """An option's value that is a sequence, or a time."""

    name: str = attrs.field(default="SEQ|TIME", init=False)

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Moment:
        """Read a moment."""
        try:
            return parse_moment(str(value))
        except MomentError as error:
            self.fail(str(error), param, ctx)
