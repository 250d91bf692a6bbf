"""The bridge to Directus: its ``commands`` go to devices, what becomes of them comes back."""
