"""How good the answers are, and how far they can be believed."""
