"""Engines roll out lives and compute gradients."""
