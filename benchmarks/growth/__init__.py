"""How each cost grows with what is stored and what is live, and what so many live runs need: `make bench-growth`."""
