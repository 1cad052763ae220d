"""Connect the Dots."""
