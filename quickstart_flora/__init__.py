"""The invented flora of the quickstart: six kinds of plants, drawn as photographs."""
