"""A fleet of simulated devices, for tests, measurements and the demo."""
