"""Data-set adapters: one file a data set, its name is the file's name (listing.py has the contract)."""
