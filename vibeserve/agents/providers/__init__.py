"""Wire formats of models' providers: one file each, and no SDK imported before it is needed."""
