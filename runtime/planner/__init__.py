"""The planner: a day ahead for the battery and for work that can wait.

A client of the gateway; the loop goes on without it.
"""
