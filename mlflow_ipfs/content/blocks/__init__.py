"""Single blocks: reading them from a store, and fetching them from sources that are not trusted."""
