"""What theory expects at each site of a custom model."""
