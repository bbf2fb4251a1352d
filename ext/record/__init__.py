"""Recorded cycles, decided again."""
