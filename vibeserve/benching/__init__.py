"""How servers are measured outside a run: any OpenAI-compatible one, alone or in turn with another."""
