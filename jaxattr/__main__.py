"""Run the command line: `python -m jaxattr`."""

from jaxattr.cli.main import main

if __name__ == "__main__":
    main(prog_name="jaxattr")
