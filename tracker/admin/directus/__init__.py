"""``tracker-admin directus``: make or check what the bridge needs in Directus."""
