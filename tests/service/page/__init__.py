"""Tests of the page in a browser, against a real server process."""
