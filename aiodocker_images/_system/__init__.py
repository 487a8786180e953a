"""What differs from platform to platform, with a plain way for each call that one of them lacks.

Linux and macOS have most of these calls, Windows has few of them. Each function looks for the call when it is used, so
that the plain way takes over wherever the call is missing, and tests can run the plain ways on Linux.
"""
