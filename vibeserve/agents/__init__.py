"""Language models that write servers: conversations with them, the tools they are given, and what they leave behind."""
