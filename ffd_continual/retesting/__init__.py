"""A finished run judged again: on perturbed faces, on harmless edits."""
