"""The dashboard: runs as pages in a browser, read from their ledgers alone and never written to."""
