"""`python -m propagate`: the same as the command `propagate`."""

from propagate.cli import main

main()
