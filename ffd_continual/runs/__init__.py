"""A run: its folder, the parts it is assembled from, its state on disk, its detector."""
