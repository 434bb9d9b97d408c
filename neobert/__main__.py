"""`python -m neobert` is the command `neobert`."""

from neobert.cli import main

main()
