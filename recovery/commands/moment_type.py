"""An option's value that is a moment of a log's past."""

import click

from recovery.moment import Moment, MomentError, parse_moment


class MomentType(click.ParamType[Moment]):
    """An option's value that is a sequence, or a time."""

    name = "SEQ|TIME"

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
