"""How fast the library is, beside its peers and the limit: `make bench`."""
