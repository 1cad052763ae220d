"""Engines: where lives are rolled out and gradients computed."""
