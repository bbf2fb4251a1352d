"""What was booked, append-only, chained and signed."""
