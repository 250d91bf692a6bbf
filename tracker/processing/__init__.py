"""The processor, which stores each position of the streams once in the database."""
