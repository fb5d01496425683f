"""The first steps of training: updates, learning rates, the coordinate check."""
