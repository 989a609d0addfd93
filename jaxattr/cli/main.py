"""The command `jaxattr` and its subcommands."""

import click

from jaxattr.cli.explain import explain
from jaxattr.cli.interrupts import leave_on_interrupt
from jaxattr.cli.listings import cite, methods, models
from jaxattr.cli.runs import evaluate, report, run
from jaxattr.cli.storage import cache


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jaxattr")
@click.pass_context
def main(context: click.Context) -> None:
    """Draw attribution maps: which pixels made a classifier say what it says."""
    context.with_resource(leave_on_interrupt())


for command in (explain, run, evaluate, report, methods, models, cite, cache):
    main.add_command(command)
