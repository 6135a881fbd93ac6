"""Names: the records that determine which content a store keeps."""
