"""`python -m tidegate.runtime.cli`: the command line without its script."""

from tidegate.runtime.cli.main import main

main()
