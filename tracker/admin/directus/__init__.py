"""The command ``directus``, which sets up Directus for the bridge and checks it."""
