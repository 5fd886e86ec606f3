"""A detector in use as numbered versions: adopted, grown, corrected, rolled back, forgotten from."""
