"""What mean-field theory expects: of activations, of layers, of stacks, of single operations."""
