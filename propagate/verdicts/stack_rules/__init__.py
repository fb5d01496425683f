"""What becomes of the signal and the gradient of a stack: a rule for each kind of answer."""
