"""What a process says of itself: whether it is ready, and why not."""
