"""Plots as SVG text, for every report."""
