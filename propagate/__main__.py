"""`python -m propagate`: the same as the command `propagate`."""

from propagate.cli.command import main

main()
