"""What is known before it is booked: live figures, marked provisional, and how they stood up later."""
