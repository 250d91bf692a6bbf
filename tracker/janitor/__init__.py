"""The janitor, which trims streams and cleans up after instances that are gone."""
