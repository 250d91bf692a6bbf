"""``tracker-admin directus``: what the bridge needs in Directus, made or looked at."""
