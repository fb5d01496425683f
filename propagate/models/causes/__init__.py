"""Why a gradient is zero, not finite or flushed: a second look, at models where one of them is."""
