"""Where positions are stored: one package a database."""
