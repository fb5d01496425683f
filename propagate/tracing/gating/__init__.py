"""Which activations are gates of a state, and what makes the inputs of activations."""
