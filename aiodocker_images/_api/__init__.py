"""The operations of `ImageService`, one file for each group of Engine endpoints."""
