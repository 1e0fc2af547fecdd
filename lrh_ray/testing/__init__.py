"""Tiny real fakes and conformance suites, for the tests of this package and of those who build on it."""
