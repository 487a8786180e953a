"""The configuration of the docker CLI's user: its files, contexts, credential helpers and keychain."""
