"""Names: what decides which content a store keeps."""
