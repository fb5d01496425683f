"""Factors of single weights: what they aim at, the search for the fewest, and their code."""
