"""Laws: predicted errors and floors, each one object with its value, its width for an error, and its measurement."""
