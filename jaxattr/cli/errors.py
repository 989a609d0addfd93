"""Bad input is refused in one sentence, without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
from jax.errors import JaxRuntimeError

from jaxattr.tracing.local import UnsupportedOperation


class Refused(click.ClickException):
    """What was asked for cannot be done, said in one sentence."""

    exit_code = 2


class Incomplete(click.ClickException):
    """Some photographs could not be explained; all others are."""

    exit_code = 1


@contextmanager
def no_traceback() -> Iterator[None]:
    """Turn the errors of bad input, and of a full machine, into one sentence."""
    try:
        yield
    except (ValueError, ModuleNotFoundError, UnsupportedOperation) as error:
        raise Refused(str(error)) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Refused(f"{where}{reason(error)}") from error
    except (JaxRuntimeError, MemoryError) as error:
        if isinstance(error, JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise Refused(f"{_first_line(error)}: a smaller --batch takes less memory") from error


def reason(error: BaseException) -> str:
    """Return what went wrong, without Python's numbers for it."""
    return getattr(error, "strerror", None) or _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
