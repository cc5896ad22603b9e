"""Who breeds: policies, selection, survival and indicators. Numbers only: no git, no GPU, no files."""
