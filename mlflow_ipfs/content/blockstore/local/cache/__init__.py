"""What may go at any time: what is in the cache, who may be reading it, and how a name comes to keep it."""
