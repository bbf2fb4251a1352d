"""Plots as SVG text, the same bytes for the same numbers, for every report."""
