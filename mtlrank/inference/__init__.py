"""Using a trained head: texts as a file or a program gives them, and what the head answers."""
