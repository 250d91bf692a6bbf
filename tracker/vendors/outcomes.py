"""The outcomes of decoders, by the name under which the vendors import them."""

from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected

__all__ = ["Decoded", "Fatal", "Incomplete", "Rejected"]
