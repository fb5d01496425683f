"""What is seen of every layer of one network: distributions of values, and residual branches."""
