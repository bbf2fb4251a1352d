"""The processes of a site, and everything that a person or a program meets of it."""
