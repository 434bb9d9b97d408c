"""One short file for every command."""
