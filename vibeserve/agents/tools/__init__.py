"""What a model may do: each tool is told to it by name and schema, checks its arguments, and answers with text."""
