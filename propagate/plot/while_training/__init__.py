"""What is seen of a record of `propagate.train`: scores by epoch, and layers while they learn."""
