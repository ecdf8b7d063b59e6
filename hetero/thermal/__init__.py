"""Heat: what the sensors say, and how much work each device may be given so that none gets too hot."""
