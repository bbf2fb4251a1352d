"""From meter records to booked periods: integers that are conserved."""
