"""Domains: families of worlds, the registry, and the contract that each domain keeps."""
