"""The command line. Nothing heavy is imported here or above a command's body: `--help` answers at once."""

from diptych.cli.commands import app

__all__ = ["app"]
