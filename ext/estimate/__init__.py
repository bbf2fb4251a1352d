"""What is: one picture of the plant from readings of different ages."""
