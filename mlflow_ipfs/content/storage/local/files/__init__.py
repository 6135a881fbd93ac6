"""Files of a local store: drafts, packs, sessions, views."""
