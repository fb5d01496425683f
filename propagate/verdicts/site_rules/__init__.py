"""What is wrong with a custom model: one file for each kind of fault."""
