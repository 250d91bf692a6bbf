"""A fleet that behaves like real devices, for tests, measurements and a look around."""
