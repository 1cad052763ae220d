"""Recipes: schemas, reading and validation."""
