"""Bad input is refused in one sentence, without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from jaxattr.tracing.local import UnsupportedOperation


class Refused(click.ClickException):
    """What was asked for cannot be done, said in one sentence."""

    exit_code = 2


@contextmanager
def no_traceback() -> Iterator[None]:
    """Turn the errors of bad input into one sentence."""
    try:
        yield
    except (ValueError, OSError, ModuleNotFoundError, UnsupportedOperation) as error:
        raise Refused(str(error)) from error
