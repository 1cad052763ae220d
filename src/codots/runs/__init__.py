"""Run folders: checkpoints, loggers, and what makes an interrupted run resume exactly."""
