"""HTTP with the Engine: the only folder that imports aiohttp."""
