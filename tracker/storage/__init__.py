"""Storage of positions: sinks, readers and checks, with one package per kind of database."""
