"""`python -m vlfleet.cli`: how a detached fleet starts itself."""

from vlfleet.cli import main

main()
