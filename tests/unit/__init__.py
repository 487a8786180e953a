"""Tests that need no Engine; the folders mirror those of the package."""
