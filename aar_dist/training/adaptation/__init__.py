"""Ways of adapting a stored model: what moves, when, and how fast. One policy object each, chosen with ``adapt``."""
