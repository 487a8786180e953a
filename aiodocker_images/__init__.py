"""An asyncio-native client for the image part of the Docker Engine API."""

__version__ = "0.1.0.dev0"
