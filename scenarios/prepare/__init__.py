"""From videos and pictures to face crops and a manifest."""
