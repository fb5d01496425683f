"""The command `propagate`, one file for each verb."""

from propagate.cli.command import main as main
