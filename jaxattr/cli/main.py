"""The command `jaxattr` and its subcommands."""

import click

from jaxattr.cli.explain import explain
from jaxattr.cli.listings import methods, models


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jaxattr")
def main() -> None:
    """Draw attribution maps: which pixels made a classifier say what it says."""


for command in (explain, methods, models):
    main.add_command(command)
