"""The live lab of `propagate lab`: a page of sliders, written on the public API alone."""
