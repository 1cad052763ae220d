"""Run folders: checkpoints, loggers, and exact resumption of interrupted work."""
