"""The drawn flora of the quickstart."""
