"""What is checked of an object, one module a topic."""
