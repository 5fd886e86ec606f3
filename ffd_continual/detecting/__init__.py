"""A detector asked: opened, judging files, evidence, novelty, discovery, export."""
