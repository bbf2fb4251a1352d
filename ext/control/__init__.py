"""What to do: the corridor, its policies, the preference, the split among units."""
