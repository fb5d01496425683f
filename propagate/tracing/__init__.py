"""Any JAX program: its sites found, tapped and recorded."""
