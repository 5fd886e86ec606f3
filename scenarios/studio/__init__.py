"""Portraits rendered procedurally: faces of nobody, for demos and tests."""
