"""Tables, made from rows and values."""
