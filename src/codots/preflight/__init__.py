"""Whether this machine is fit for a recipe, and what a run will take of it."""
