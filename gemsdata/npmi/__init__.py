"""How often each n-gram occurs, and how surprising that is."""
