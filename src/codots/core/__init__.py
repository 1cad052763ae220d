"""What every room stands on: random streams, files, processes, words for errors."""
