"""`vlfleet top`: a fleet in a terminal.

A glance (JSON of the admin port) becomes lines of text here without Textual; `frame` lays them out for a screen of any
size, `once` for a pipe. Only `app` knows Textual, only `link` knows the network.
"""
