"""Helpers of the tests: scripted daemons, proxies, archives, terminals."""
