"""One file a learner; the file name is its name in a config."""
