"""The families of forgeries that this project makes from real faces, one file each."""
