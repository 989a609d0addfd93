"""Run the command line: `python -m jaxattr`."""

from jaxattr.cli.commands import main

if __name__ == "__main__":
    main(prog_name="jaxattr")
