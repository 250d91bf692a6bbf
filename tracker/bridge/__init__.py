"""Directus: commands from there to the devices, and what became of them back to there."""
