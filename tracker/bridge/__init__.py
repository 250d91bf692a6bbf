"""The bridge to Directus: sends the commands written there, and reports their status."""
