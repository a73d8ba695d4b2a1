"""Using a trained head: reading the texts of a file or a program, scoring them, and the head's answers."""
