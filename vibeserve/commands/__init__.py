"""The commands of the command line, one module per noun; each imports what it needs when it is called."""
