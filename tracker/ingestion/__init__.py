"""Receive records from devices, append them to streams, and acknowledge them."""
