"""The local page: uploads, verdicts, a lineage in pictures."""
