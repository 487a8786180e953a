"""Images in registries, layouts and archives, without an Engine: the OCI distribution API and what belongs to it."""
