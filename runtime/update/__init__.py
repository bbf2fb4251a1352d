"""A new release onto a machine, and back: signed, with the battery at 0 W, checked, taken back if it does not work."""
