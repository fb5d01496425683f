"""What the verdicts are tried on: healthy models, and models with a fault planted in them."""
