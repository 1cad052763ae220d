"""The command line: thin commands, and what a person sees while they run."""
