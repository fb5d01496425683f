"""A model of the user's, of any framework: diagnosed, and with its theory beside it."""
