"""The @Track protocol of Queclink: the ASCII and the HEX encoding."""
