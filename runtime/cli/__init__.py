"""The command line, `tidegate`: one module a group of commands. Nothing imports it."""
