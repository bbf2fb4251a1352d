"""What a computation drew: job logs and software energy, and the share of the metered energy that follows from them."""
