"""The bridge to Directus: it sends the commands written there, and reports their results."""
