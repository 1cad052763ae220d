"""Deployment: an agent whose context outlives the process, in a store of worlds, versions and tasks."""
