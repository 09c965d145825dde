"""The pages, each a script in the order of the page."""
