"""Storage of positions: one package a database."""
