"""Archives: sources and sinks of tars, the check that a tar is whole, and a directory as a build context."""
