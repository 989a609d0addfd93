"""The methods, one file each, named after its function."""
