"""What the functions of Julia mean as layers, for lowered code and for source."""
