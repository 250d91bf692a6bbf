"""From a device's socket to a durable stream entry, and the acknowledgement back."""
