"""Single blocks: reading them from a store, and fetching them from untrusted sources."""
