"""What is seen: manifests, forging, capture profiles, streams."""
