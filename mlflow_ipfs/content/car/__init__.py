"""CAR archives: format, import and export."""
