"""Tests against a real Engine."""
