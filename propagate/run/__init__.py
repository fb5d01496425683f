"""A network's signals and gradients, compiled and run, as a record."""
