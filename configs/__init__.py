"""YAML files, one an experiment."""
