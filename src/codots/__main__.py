"""`python -m codots` is `codots`."""

from codots.cli.main import main

main()
