"""Parts of a picture that have an axis of their own."""
