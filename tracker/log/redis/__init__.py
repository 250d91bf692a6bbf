"""The record log in Redis streams."""
