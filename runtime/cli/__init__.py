"""The command line, `tidegate`: one module a group of commands."""
