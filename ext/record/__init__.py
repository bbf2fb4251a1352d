"""Recorded cycles, decided again by the same code: the same verdicts, or the first that differs."""
