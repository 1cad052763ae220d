"""Domains: families of worlds, where to find them, and the contract that they keep."""
