"""What a run amounts to in words: what was asked, found and learned, as one page of HTML or Markdown."""
